"""Helpers that bundle configs call: sizes, digests of sections, records of a run, networks from model.json."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from medmamba_monai import networks
from medmamba_monai.bundling import runtime
from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.networks.model_info import ModelInfo

IMPORTS = ["$import medmamba_monai.bundling.runtime as runtime"]


def evaluate(expression: str, **config: Any) -> Any:
    parser = ConfigParser({"imports": IMPORTS, "result": expression, **config})
    return parser.get_parsed_content("result")


def test_spatial_size_takes_one_length_or_one_an_axis() -> None:
    assert runtime.spatial_size(64) == [64, 64]
    assert runtime.spatial_size((64, 96)) == [64, 96]
    assert runtime.spatial_size(48, 3) == [48, 48, 48]
    with pytest.raises(ConfigError, match="2 lengths"):
        runtime.spatial_size([1, 2, 3])


def test_items_in_memory_counts_float32_arrays() -> None:
    assert runtime.items_in_memory([3, 100, 100], gigabytes=1) == 10**9 // 120_000


def digest(sections: dict[str, Any]) -> str:
    return str(evaluate("$runtime.config_digest()", **sections))


def test_the_digest_follows_values_and_not_their_way_of_being_written() -> None:
    base = {"preprocessing": [{"size": "@size"}, "$torch.float32"], "size": [32, 40], "other": 1}
    assert digest(base) == digest({**base, "other": 2})
    assert digest(base) == digest({**base, "size": "$[32, 8 * 5]"})
    assert digest(base) == digest({**base, "preprocessing": [{"size": [32, 40]}, "$torch.float32"]})
    assert digest(base) != digest({**base, "size": [40, 32]})
    assert digest(base) != digest({**base, "preprocessing": [{"size": "@size"}, "$torch.float16"]})


def test_helpers_that_need_a_config_say_so_outside_of_one() -> None:
    with pytest.raises(ConfigError, match="no config"):
        runtime.config_digest()


def test_the_record_holds_values_of_keys_and_the_rest_as_written() -> None:
    record = evaluate(
        "$runtime.recorded_config()",
        device="$torch.device('cpu')",
        output_dir="$'a' + 'b'",
        epochs=3,
        network_def={"_target_": "not.to.be.Built"},
        run=["$1"],
    )
    assert record == {
        "device": "cpu",
        "output_dir": "ab",
        "epochs": 3,
        "network_def": {"_target_": "not.to.be.Built"},
        "result": "$runtime.recorded_config()",
    }


@pytest.mark.parametrize("wanted", [True, False, None, "path"])
def test_the_config_is_saved_where_and_when_it_is_wanted(wanted: Any, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "own.json" if wanted == "path" else tmp_path / "out" / "run.json"
    given = str(target) if wanted == "path" else wanted
    evaluate("$runtime.save_config(@output_dir, 'run.json', @wanted)", output_dir=str(tmp_path / "out"), wanted=given)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written == ([target] if wanted else [])
    if wanted:
        assert json.loads(target.read_text())["wanted"] == given


def test_the_bundle_is_found_from_the_config_file(tmp_path: Path) -> None:
    folder = tmp_path / "bundle x" / "configs"
    folder.mkdir(parents=True)
    content = {"imports": IMPORTS, "bundle_root": "$runtime.bundle_root()", "initialize": ["$runtime.begin()"]}
    for file in (folder / "train.json", tmp_path / "train.json"):
        file.write_text(json.dumps(content))
    found = []
    for file in (folder / "train.json", tmp_path / "train.json"):
        flow = ConfigWorkflow(str(file), logging_file=False, workflow_type=None)
        flow.initialize()
        found.append(flow.parser.get_parsed_content("bundle_root"))
    assert found == [str(tmp_path / "bundle x"), "."]


def info(**changes: Any) -> ModelInfo:
    network = networks.create("nano", num_classes=2, in_channels=1, d_state=8)
    values: dict[str, Any] = {"network": network.config, "extra": {}, **changes}
    return ModelInfo(["a", "b"], 1, 2, [32, 32], preprocessing_digest="x", **values)


def test_the_trained_network_is_built_from_its_description(tmp_path: Path) -> None:
    info().save(tmp_path)
    described = ModelInfo.load(tmp_path)
    network = runtime.trained_network(described)
    assert network.config == described.network
    assert network.config["d_state"] == 8
    assert runtime.trained_network(described, num_classes=5).num_classes == 5
    with pytest.raises(CheckpointError, match="network_def"):
        runtime.trained_network(info(network={}))


def test_a_network_without_weights_of_its_own_is_described_only_where_others_give_them(tmp_path: Path) -> None:
    """MONAI's federated client disables the evaluator's loader of weights; nothing else may do without model.json."""
    loader = {"_target_": "medmamba_monai.bundling.runtime.ModelCheckpointLoader"}
    config = {
        "_meta_": {"network_data_format": {"inputs": {"image": {"spatial_shape": [32, 48]}}}},
        "preset": "nano",
        "in_channels": 1,
        "spatial_dims": 2,
        "validate": {"handlers": [loader]},
        "ckpt_dir": str(tmp_path),
    }
    with pytest.raises(RuntimeError) as caught:
        evaluate("$runtime.trained_info(@ckpt_dir)", **config)
    assert isinstance(root_cause(caught.value), CheckpointError)
    config["validate"] = {"handlers": [{**loader, "_disabled_": True}]}
    described = evaluate("$runtime.trained_info(@ckpt_dir)", **config)
    assert (described.class_names, described.image_size) == ([], [32, 48])
    assert described.network["dims"][0] == networks.PRESETS["nano"].dims[0]
    info().save(tmp_path)
    assert evaluate("$runtime.trained_info(@ckpt_dir)", **config).class_names == ["a", "b"]


def test_pretrained_weights_are_loaded(tmp_path: Path) -> None:
    source, target = (networks.create("nano", num_classes=2, in_channels=1) for _ in range(2))
    torch.save(source.state_dict(), tmp_path / "model.pt")
    assert runtime.with_pretrained(target, None) is target
    assert runtime.with_pretrained(target, str(tmp_path / "model.pt")) is target
    expected = source.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in target.state_dict().items())


def test_outputs_are_told_with_their_scores(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps({"n": 4, "accuracy": 0.75, "per_class": {}}))
    with caplog.at_level(logging.INFO):
        runtime.tell_outputs(str(metrics), str(tmp_path / "missing.csv"))
    assert [record.message for record in caplog.records] == [f"wrote {metrics}", "scores: accuracy 0.7500"]
    resampling = {"level": 0.95, "clusters": 3, "unit": "group"}
    intervals = {"accuracy": [0.5, 0.9], "auc": None}
    content = {"n": 4, "accuracy": 0.75, "auc": 1.0, "f1": None, "intervals": intervals, "resampling": resampling}
    metrics.write_text(json.dumps(content))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        runtime.tell_outputs(str(metrics))
    expected = "scores (95% intervals over 3 groups): accuracy 0.7500 [0.500, 0.900], auc 1.0000"
    assert [record.message for record in caplog.records] == [f"wrote {metrics}", expected]


def test_a_refusal_inside_a_config_keeps_its_reason() -> None:
    with pytest.raises(RuntimeError) as caught:
        evaluate("$runtime.spatial_size([1, 2, 3])")
    assert isinstance(root_cause(caught.value), ConfigError)


def test_the_tracking_servers_password_is_not_recorded() -> None:
    config = {"tracking_uri": "https://me:secret@host/x", "seed": 0}
    assert runtime._without_password(config) == {"tracking_uri": "https://host/x", "seed": 0}
    assert runtime._without_password({"tracking_uri": "https://a:p@ss@host/x"}) == {"tracking_uri": "https://host/x"}
    assert runtime._without_password({"tracking_uri": None}) == {"tracking_uri": None}
