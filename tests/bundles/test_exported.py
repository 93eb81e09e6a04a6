"""A trained bundle is exported, and predicts from the file what its weights predict; also without the package."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medmamba_monai import cli
from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.errors import CheckpointError, ConfigError, MedMambaError

from .conftest import PICTURES, BundleCopy, copy_bundle

SMALLEST = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64], "d_state": 4, "in_channels": 1}
NETWORK = {"_target_": "medmamba_monai.networks.MedMamba", **SMALLEST, "num_classes": "$len(@classes)"}

WITHOUT_THE_PACKAGE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("medmamba_monai", "monai"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
try:
    import medmamba_monai
except ModuleNotFoundError:
    pass
else:
    sys.exit("the package is there")
import torch, onnxruntime
images, target, torchscript, onnx, torch_export = sys.argv[1:]
x = torch.load(images, weights_only=True)
session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
with torch.no_grad():
    logits = {
        "torchscript": torch.jit.load(torchscript)(x),
        "torch_export": torch.export.load(torch_export).module()(x),
        "onnx": torch.from_numpy(session.run(None, {"image": x.numpy()})[0]),
    }
torch.save(logits, target)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> BundleCopy:
    """A trained bundle that has predicted from its weights, and its TorchScript file."""
    bundle = copy_bundle("breast_ultrasound_classification", tmp_path_factory.mktemp("exported"))
    bundle.run("train", network_def=NETWORK)
    bundle.run("inference", output_dir=str(bundle.root / "from weights"))
    assert cli.main(["export", str(bundle.root), "--format", "torchscript"]) == 0
    return bundle


def predictions(folder: Path) -> tuple[list[str], np.ndarray]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("file", "label", "prediction")]
    return [row["file"] for row in rows], np.array([[float(row[name]) for name in names] for row in rows])


def check_predictions(bundle: BundleCopy, file: Path, folder: Path) -> None:
    """Predict where there are no weights at all, only the file."""
    bundle.run("inference", exported=str(file), output_dir=str(folder), ckpt_dir=str(folder / "nothing here"))
    files, expected = predictions(bundle.root / "from weights")
    assert predictions(folder)[0] == files
    np.testing.assert_allclose(predictions(folder)[1], expected, atol=1e-4)


def refused(kind: type[MedMambaError], bundle: BundleCopy, folder: Path, **overrides: Any) -> str:
    with pytest.raises((RuntimeError, MedMambaError)) as caught:
        bundle.run("inference", output_dir=str(folder), **overrides)
    reason = root_cause(caught.value)
    assert isinstance(reason, kind), reason
    assert not (folder / "predictions.csv").exists()
    return str(reason)


def test_inference_from_torchscript(trained: BundleCopy, tmp_path: Path) -> None:
    check_predictions(trained, trained.root / "models" / "model.ts", tmp_path)


@pytest.mark.slow
def test_every_format_predicts_and_runs_without_the_package(trained: BundleCopy, tmp_path: Path) -> None:
    formats = ["torchscript", "onnx", "torch_export"]
    assert cli.main(["export", str(trained.root), "--output", str(tmp_path / "net"), "--format", *formats]) == 0
    files = [tmp_path / f"net{suffix}" for suffix in (".ts", ".onnx", ".pt2")]
    for file in files[1:]:
        check_predictions(trained, file, tmp_path / file.suffix)

    flow = trained.workflow("inference")
    flow.initialize()
    images = torch.stack([flow.dataset[i]["image"] for i in range(3)])
    torch.save(images, tmp_path / "images.pt")
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_THE_PACKAGE]
    command += [str(tmp_path / name) for name in ("images.pt", "logits.pt")] + [str(file) for file in files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    network = flow.network_def.eval()
    network.load_state_dict(torch.load(trained.root / "models" / "model.pt", weights_only=True))
    logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert sorted(logits) == sorted(formats)
    with torch.no_grad():
        for values in logits.values():
            torch.testing.assert_close(values, network(images), atol=1e-4, rtol=0)


def test_evaluation_of_an_exported_network_gives_the_same_scores(trained: BundleCopy, tmp_path: Path) -> None:
    trained.run("evaluate", output_dir=str(tmp_path / "weights"))
    given = {"exported": str(trained.root / "models" / "model.ts"), "ckpt_dir": str(tmp_path / "nothing here")}
    trained.run("evaluate", output_dir=str(tmp_path / "file"), **given, **PICTURES)
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("weights", "file"))
    assert first["confusion_matrix"] == second["confusion_matrix"]
    assert first["auc"] == pytest.approx(second["auc"], abs=1e-4)


def test_a_file_for_other_images_is_refused(trained: BundleCopy, tmp_path: Path) -> None:
    file = str(trained.root / "models" / "model.ts")
    assert "preprocessing digest" in refused(CheckpointError, trained, tmp_path, exported=file, image_size=64)
    assert "channels" in refused(CheckpointError, trained, tmp_path, exported=file, color="rgb")
    assert "cannot change" in refused(ConfigError, trained, tmp_path, exported=file, **{"network_def::num_classes": 5})
    message = refused(ConfigError, trained, tmp_path, exported=file, network_def={**NETWORK, "num_classes": 3})
    assert "--exported or --network_def" in message


def test_a_file_that_is_no_export_is_refused(trained: BundleCopy, tmp_path: Path) -> None:
    assert "model.pt" in refused(CheckpointError, trained, tmp_path, exported=str(trained.root / "models" / "model.pt"))
    assert "no such file" in refused(CheckpointError, trained, tmp_path, exported=str(tmp_path / "no.onnx"))
    bare = torch.jit.load(str(trained.root / "models" / "model.ts"))
    torch.jit.save(bare, str(tmp_path / "bare.ts"))
    assert "does not say" in refused(CheckpointError, trained, tmp_path, exported=str(tmp_path / "bare.ts"))
    shutil.copy(trained.root / "models" / "model.ts", tmp_path / "wrong.onnx")
    assert "wrong.onnx" in refused(CheckpointError, trained, tmp_path, exported=str(tmp_path / "wrong.onnx"))
