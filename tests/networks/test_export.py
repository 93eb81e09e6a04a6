"""Exported files give the network's logits, for any batch; a file that does not is not written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.networks import export as module
from medmamba_monai.networks.export import OPSET, TOLERANCE, export_network, portable
from medmamba_monai.networks.exported import ExportedNetwork

from .conftest import Export, describe, export, tiny


def test_every_format_gives_the_networks_logits_for_any_batch(exported: Export) -> None:
    assert [(w.format, w.path) for w in exported.written] == list(exported.files.items())
    assert all(0 <= w.difference <= TOLERANCE for w in exported.written)
    for file in exported.files.values():
        network = ExportedNetwork(file)
        for batch in (1, 2, 5):
            images = torch.randn(batch, 1, 32, 40)
            with torch.no_grad():
                torch.testing.assert_close(network(images), exported.network(images), atol=1e-5, rtol=0)


def test_the_onnx_file_states_operators_names_and_a_free_batch(exported: Export) -> None:
    import onnx

    model = onnx.load(exported.files["onnx"])
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET
    assert [entry.name for entry in (*model.graph.input, *model.graph.output)] == ["image", "logits"]
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert shape[0].dim_param
    assert [axis.dim_value for axis in shape[1:]] == [1, 32, 40]
    assert {node.domain for node in model.graph.node} == {""}
    description = {entry.key: entry.value for entry in model.metadata_props}["model.json"]
    assert json.loads(description)["class_names"] == ["naïve", "no", "yes"]


@pytest.mark.parametrize(("size", "other"), [([32, 40], (64, 33)), ([32, 32, 40], (32, 40, 48))], ids=["2d", "3d"])
def test_torchscript_takes_every_size(size: list[int], other: tuple[int, ...], tmp_path: Path) -> None:
    made = export(tiny(len(size)), size, tmp_path, "torchscript")
    network, images = ExportedNetwork(made.files["torchscript"]), torch.randn(2, 1, *other)
    with torch.no_grad():
        torch.testing.assert_close(network(images), made.network(images), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_volumes_go_through_torch_export_to_onnx(tmp_path: Path) -> None:
    made = export(tiny(3), [32, 32, 32], tmp_path, "onnx")
    images = torch.randn(4, 1, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ExportedNetwork(made.files["onnx"])(images), made.network(images), atol=1e-5, rtol=0)


def test_a_backend_chosen_for_training_does_not_enter_the_file(tmp_path: Path) -> None:
    network = tiny(scan_backend="reference", gradient_checkpointing=True).train()
    assert network.training
    assert portable(network).config["scan_backend"] is None  # type: ignore[index]
    (written,) = export_network(network, describe(network, [32, 32]), {"torchscript": tmp_path / "net.ts"})
    assert network.training
    assert written.difference <= TOLERANCE


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny()
    target = tmp_path / "net.ts"
    target.write_text("what was there before")

    def wrong(x: Any) -> Any:
        changed = portable(x)
        with torch.no_grad():
            changed.head.bias += 2 * TOLERANCE
        return changed

    script = torch.jit.script
    monkeypatch.setattr(torch.jit, "script", lambda x: script(wrong(x)))
    with pytest.raises(CheckpointError, match="differ"):
        list(export_network(network, describe(network, [32, 32]), {"torchscript": target}))
    assert target.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_missing_or_unknown_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny()
    info = describe(network, [32, 32])
    with pytest.raises(ConfigError, match="torchscript, onnx, torch_export"):
        list(export_network(network, info, {"tflite": tmp_path / "net.tflite"}))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript.*medmamba_monai\[export\]"):
        list(export_network(network, info, {"onnx": tmp_path / "net.onnx"}))
    assert list(tmp_path.iterdir()) == []
    assert module.BATCH_SIZES == (1, 3)
