"""What repeated trainings share: settings read once, keys that are refused, and runs that go on where they stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.bundling import experiment as module
from medmamba_monai.bundling.experiment import RunPlace, open_experiment, parse_overrides
from medmamba_monai.bundling.subprocesses import Interrupted, RunFailedError
from medmamba_monai.errors import ConfigError

from .experiments import FakeRuns, make_experiment, write_images


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    fake = FakeRuns()
    monkeypatch.setattr(module, "run_bundle", fake)
    return fake


def test_settings_of_a_bundle(bundle: Path, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    options = {"dataset_dir": str(data), "seed": 3, "epochs": 2, "key_metric": "auc", "mlflow": "false"}
    opened = open_experiment(bundle, tmp_path / "out", options)
    assert opened.settings["seed"] == 3
    assert (opened.settings["key_metric"], opened.settings["task"]) == ("auc", "multiclass")
    assert opened.settings["mlflow"] is False
    assert str(opened.settings["tracking_uri"]).endswith("/out/mlruns.db")
    assert opened.splits.datalist.class_names == ["benign", "malignant"]
    assert not list(bundle.rglob("datalist.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"epoch": 5}, "'epoch' is not known"), ({"epochs": 0}, "epochs must be"), ({"resume": True}, "set by this")],
)
def test_overrides_are_checked_before_anything_runs(
    options: dict[str, Any], message: str, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_experiment(bundle, tmp_path / "out", {"dataset_dir": str(tmp_path), **options})


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="configs/train.json"):
        open_experiment(tmp_path, tmp_path / "out", {})


@pytest.mark.parametrize("words", [["epochs", "3"], ["--epochs"], ["--epochs", "--seed", "3"], ["--"]])
def test_words_that_are_no_overrides(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="arguments"):
        parse_overrides(words)


def test_a_finished_training_is_left_alone_and_a_half_finished_one_resumed(tmp_path: Path, runs: FakeRuns) -> None:
    opened, place = make_experiment(tmp_path), RunPlace(tmp_path / "out" / "a")
    assert opened.train(place, {"seed": 1}) == 0
    assert opened.train(place, {"seed": 1}) == 0
    assert len(runs.asked) == 1
    assert runs.asked[0][1]["resume"] is False
    place.log("train").with_suffix(".status.json").unlink()  # as after kill -9
    (place.weights / "checkpoint.pt").write_bytes(b"state")
    opened.train(place, {"seed": 1})
    assert runs.asked[1][1]["resume"] is True


@pytest.mark.parametrize("has_previous", [True, False])
def test_killed_between_last_state_and_end(has_previous: bool, tmp_path: Path, runs: FakeRuns) -> None:
    opened, place = make_experiment(tmp_path), RunPlace(tmp_path / "out" / "a")
    place.weights.mkdir(parents=True)
    (place.weights / "checkpoint.pt").write_bytes(b"state")
    if has_previous:
        (place.weights / "checkpoint_previous.pt").write_bytes(b"state")

    def refuse_finished(mode: str, options: dict[str, Any], log: Path) -> int:
        if options["resume"] is True:
            log.write_text("CheckpointError: c.pt: the training is finished: 3 of 3 epochs are done. Remedy: x\n")
            return 1
        return 0

    runs.before = refuse_finished
    assert opened.train(place, {}) == 0
    expected = str(place.weights / "checkpoint_previous.pt") if has_previous else False
    assert [options["resume"] for _, options in runs.asked] == [True, expected]


def test_the_message_we_look_for_is_what_resuming_says() -> None:
    source = (Path(module.__file__).parents[1] / "handlers" / "resume.py").read_text()
    assert source.count(f'f"{module.IS_FINISHED}: ') == 2


def test_failures_name_the_log(tmp_path: Path, runs: FakeRuns) -> None:
    opened, place = make_experiment(tmp_path), RunPlace(tmp_path / "out" / "a")

    def fail(mode: str, options: dict[str, Any], log: Path) -> int:
        log.write_text("x\nDataError: image.png: unreadable\n")
        return 1

    runs.before = fail
    with pytest.raises(RunFailedError, match=r"a/train\.log: .*status 1: DataError: image\.png: unreadable"):
        opened.train(place, {})
    runs.before = lambda mode, options, log: 75
    with pytest.raises(Interrupted, match="from outside"):
        opened.train(place, {})
    assert opened.train(place, {}, watch=lambda child: None) == 75  # somebody here may have stopped it
    runs.before = lambda mode, options, log: -15
    assert opened.train(place, {}, watch=lambda child: None) == 75  # while it was not in its epochs
    with pytest.raises(Interrupted, match="from outside"):
        opened.train(place, {})


def test_an_evaluation_gets_no_key_that_model_json_answers(tmp_path: Path) -> None:
    given = {"image_size": 64, "network_def#d_state": 8, "network_def::x": 1, "window": [40, 400], "preset": "tiny"}
    opened, place = make_experiment(tmp_path, given), RunPlace(tmp_path / "out" / "a")
    words = opened.arguments("evaluate", place, {"seed": 1})
    assert "--window" in words
    assert not {"--image_size", "--network_def#d_state", "--network_def::x", "--preset"} & set(words)
    assert {"--image_size", "--network_def#d_state", "--preset"} <= set(opened.arguments("train", place, {}))


def test_runs_need_not_look_for_copies_again(tmp_path: Path, runs: FakeRuns) -> None:
    opened, place = make_experiment(tmp_path), RunPlace(tmp_path / "out" / "a")
    opened.splits.refuse_leakage()
    opened.train(place, {})
    assert json.loads((place.results / "duplicates.json").read_text())["images"] == 24


def test_the_tracking_servers_address_is_handed_over_unseen(
    tmp_path: Path, runs: FakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = "https://ann:secret@host"
    opened, place = make_experiment(tmp_path, {"tracking_uri": uri}), RunPlace(tmp_path / "out" / "a")
    assert opened.environment == {}
    opened.settings.update(mlflow=True, tracking_uri=uri)  # type: ignore[attr-defined]
    opened.train(place, {})
    assert "tracking_uri" not in runs.asked[0][1]
    assert runs.further[0]["environment"] == {"MLFLOW_TRACKING_URI": uri}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://other")
    assert opened.environment == {}
