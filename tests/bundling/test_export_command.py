"""The verb ``export``: which weights it takes, where it writes, what it says; and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medmamba_monai import cli
from medmamba_monai.bundling.export_command import checkpoint_folder, output_files
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.networks import MedMamba, ModelInfo
from medmamba_monai.networks.exported import ExportedNetwork


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a tiny network's weights, inside a bundle's."""
    folder = tmp_path / "my bündle" / "models"
    sizes: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64), "d_state": 4}
    network = MedMamba(in_channels=1, num_classes=2, **sizes).eval()
    ModelInfo(["no", "yes"], 1, 2, [32, 32], network.config, "0" * 64).save(folder)
    torch.save(network.state_dict(), folder / "model.pt")
    return folder


def test_a_bundle_is_exported_beside_its_weights(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(trained.parent), "--format", "torchscript"]) == 0
    assert f"wrote {trained / 'model.ts'} (torchscript" in capsys.readouterr().out
    network = ExportedNetwork(trained / "model.ts")
    assert network.info.class_names == ["no", "yes"]
    original = MedMamba(**network.info.network).eval()
    original.load_state_dict(torch.load(trained / "model.pt", weights_only=True))
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images), original(images), atol=1e-5, rtol=0)


def test_where_it_writes(tmp_path: Path) -> None:
    formats = ["torchscript", "onnx"]
    for given in ("nets/v1.2", "nets/v1.2.onnx"):
        assert output_files(tmp_path / given, formats) == {
            "torchscript": tmp_path / "nets/v1.2.ts",
            "onnx": tmp_path / "nets/v1.2.onnx",
        }
    with pytest.raises(ConfigError, match=r"--format torch_export"):
        output_files(tmp_path / "net.pt2", formats)
    with pytest.raises(ConfigError, match="is a folder"):
        output_files(tmp_path, formats)


def test_what_it_reads(trained: Path, tmp_path: Path) -> None:
    assert checkpoint_folder(trained) == checkpoint_folder(trained.parent) == trained
    with pytest.raises(CheckpointError, match="ckpt_dir"):
        checkpoint_folder(tmp_path)


def test_weights_that_cannot_be_exported(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = trained / "model.pt"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    assert cli.main(["export", str(trained), "--format", "torchscript"]) == 3
    assert "model.pt" in capsys.readouterr().err
    weights.write_bytes(whole)
    ModelInfo(["no", "yes"], 1, 2, [32, 32], {}, "0" * 64).save(trained)
    assert cli.main(["export", str(trained), "--format", "torchscript"]) == 3
    assert "ckpt_export" in capsys.readouterr().err
    assert not (trained / "model.ts").exists()
    with pytest.raises(SystemExit):
        cli.main(["export", str(trained), "--format", "tflite"])
