"""An override without effect, or of the wrong kind, stops a workflow before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from medmamba_monai.bundling.overrides import check_overrides, idle_keys, running, running_with, unused_keys
from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.errors import ConfigError

CONFIG = {
    "imports": ["$from medmamba_monai.bundling import overrides"],
    "epochs": 3,
    "amp": False,
    "run_name": None,
    "output_dir": "out",
    "steps_per_epoch": 5,
    "train": {"steps": "$@epochs * @steps_per_epoch"},
    "initialize": ["$overrides.check_overrides()"],
    "run": ["$@train::steps"],
}


def workflow(folder: Path, *extra: dict[str, Any], **overrides: Any) -> ConfigWorkflow:
    files = []
    for number, content in enumerate([CONFIG, *extra]):
        files.append(folder / f"{number}.json")
        files[-1].write_text(json.dumps(content))
    arguments = {"meta_file": None, "logging_file": False, "workflow_type": None, **overrides}
    return ConfigWorkflow([str(file) for file in files], **arguments)


def failure(flow: ConfigWorkflow) -> str:
    with pytest.raises(RuntimeError) as caught:
        flow.initialize()
    reason = root_cause(caught.value)
    assert isinstance(reason, ConfigError)
    return str(reason)


@pytest.mark.parametrize(
    ("name", "close"),
    [("epoch", "epochs"), ("out_dir", "output_dir"), ("Amp", "amp"), ("step_per_epoch", "steps_per_epoch")],
)
def test_a_misspelt_key_is_refused_with_the_nearest(name: str, close: str, tmp_path: Path) -> None:
    message = failure(workflow(tmp_path, **{name: 5}))
    assert f"'{name}'" in message
    assert f"did you mean '{close}'" in message


def test_a_misspelt_key_in_a_further_file_is_refused(tmp_path: Path) -> None:
    assert "'epoch'" in failure(workflow(tmp_path, {"epoch": 5}))


def test_keys_with_an_effect_pass(tmp_path: Path) -> None:
    flow = workflow(
        tmp_path,
        {"mine": 7, "steps_per_epoch": "@mine", "_note": "kept for myself"},
        **{"epochs": 2, "train::extra": 1, "train#steps": "$@epochs + @mine", "learning_rate": 0.1},
    )
    flow.initialize()
    assert flow.run() == [9]


def test_a_key_run_by_name_passes(tmp_path: Path) -> None:
    flow = workflow(tmp_path, {"training": ["$@epochs"]}, run_id="training")
    flow.initialize()
    assert flow.run() == [3]


def test_the_keys_of_monais_own_tracking_pass(tmp_path: Path) -> None:
    flow = workflow(tmp_path, tracking="mlflow", bundle_root=str(tmp_path), output_dir=str(tmp_path / "o"))
    flow.initialize()
    assert flow.run() == [15]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epochs", "ten", "epochs must be a whole number of at least 1, not 'ten'"),
        ("epochs", 0, "at least 1"),
        ("amp", "maybe", "amp must be true or false"),
        ("output_dir", "", "output_dir must be a text"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(name: str, value: Any, words: str, tmp_path: Path) -> None:
    assert words in failure(workflow(tmp_path, **{name: value}))


def test_spellings_of_the_command_line_take_effect(tmp_path: Path) -> None:
    flow = workflow(tmp_path, amp="false", run_name="none", output_dir=2026)
    flow.initialize()
    assert [flow.parser.get_parsed_content(key) for key in ("amp", "run_name", "output_dir")] == [
        False,
        None,
        "2026",
    ]
    assert [flow.parser.get(key) for key in ("amp", "run_name", "output_dir")] == [False, None, "2026"]


def idle(config: dict[str, Any]) -> list[str]:
    parser = ConfigParser(config)
    parser.parse()
    return idle_keys(parser.ref_resolver.items)


def test_keys_of_another_mode_are_idle() -> None:
    inference = {"epochs": 3, "batch_size": 2, "dataloader": "@batch_size"}
    assert idle(inference) == ["epochs"]
    training = {"epochs": 3, "exported": "net.onnx", "train": "@epochs"}
    assert idle(training) == ["exported"]
    evaluation = {"epochs": 3, "resume": False, "split": "test", "train": "@epochs", "validate": "@split"}
    assert idle(evaluation) == []


class Server:
    """Evaluates configs for others."""

    def __init__(self) -> None:
        self.bundle_path = "somewhere"

    def ask(self, attribute: str) -> Any:
        return running_with(attribute)


def test_who_evaluates_a_config_is_found_by_what_it_knows() -> None:
    server = Server()
    assert server.ask("bundle_path") is server
    assert server.ask("no_such_attribute") is None
    assert running_with("bundle_path") is None


def test_outside_a_config_the_check_says_that_it_does_nothing() -> None:
    assert running(ConfigParser) is None
    with pytest.warns(UserWarning, match="not checked"):
        check_overrides()


def test_unused_keys_ignores_references_a_key_makes_to_itself() -> None:
    from monai.bundle.config_item import ConfigItem

    items = {"lost": ConfigItem({"a": 1}, "lost"), "lost::b": ConfigItem("@lost::a", "lost::b")}
    assert unused_keys(items, set()) == ["lost"]
