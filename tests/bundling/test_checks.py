"""Every check sees the fault that is planted for it, and all of them pass a bundle as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.bundling.checks import CHECKS
from medmamba_monai.bundling.pack import pack
from medmamba_monai.bundling.release import Release
from medmamba_monai.bundling.verify import Outcome, verify

UNSCRIPTABLE = """
import torch

class Net(torch.nn.Module):
    config = {}
    def __init__(self, classes):
        super().__init__()
        self.head = torch.nn.Linear(1, classes)
    def forward(self, x):
        try:
            return self.head(x.mean(dim=(1, 2, 3))[:, None])
        except ValueError:
            return x
"""


def outcomes(bundle: Path, schemas: Path, *names: str) -> dict[str, Outcome]:
    """Make the named checks and those they need."""
    wanted = set(names)
    for check in reversed(CHECKS):
        wanted |= set(check.needs) if check.name in wanted else set()
    chosen = [check for check in CHECKS if check.name in wanted]
    return {outcome.check: outcome for outcome in verify(bundle, schemas, chosen)}


@pytest.fixture
def schemas(repository: Path) -> Path:
    return repository / "configs" / "schema"


def edit(bundle: Path, file: str, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "configs" / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def drop(*keys: str) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def put(value: Any, *keys: str) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


IMAGE = ("network_data_format", "inputs", "image")
SCORES = ("network_data_format", "outputs", "pred")
FAULTS = {
    "task missing": ("schema", "metadata.json", drop("task"), "task"),
    "schema unknown": ("schema", "metadata.json", put("https://x/schema_9.json", "schema"), "schema_9.json"),
    "no schema": ("schema", "metadata.json", drop("schema"), "no copy of the schema"),
    "shape without length": ("schema", "metadata.json", put([0.5, "x"], *IMAGE, "spatial_shape"), "0.5"),
    "changelog without version": ("changelog", "metadata.json", put({"0.0.9": "x"}, "changelog"), "0.1.0"),
    "no changelog": ("changelog", "metadata.json", drop("changelog"), "changelog"),
    "no version": ("changelog", "metadata.json", drop("version"), "version"),
    "wrong input channels": ("network", "metadata.json", put(3, *IMAGE, "num_channels"), "channels"),
    "wrong outputs": ("network", "metadata.json", put(7, *SCORES, "num_channels"), "7"),
    "wrong dtype": ("network", "metadata.json", put("float64", *SCORES, "dtype"), "float64"),
    "another name": ("files", "metadata.json", put("other", "name"), "other"),
    "a path of one machine": ("paths", "train.json", put("/home/ann/busi", "dataset_dir"), "/home/ann/busi"),
    "train: inferer missing": ("properties of train", "train.json", drop("train", "inferer"), "inferer"),
    "train: dataset missing": ("properties of train", "train.json", drop("train", "dataset"), "dataset"),
    "evaluate: data missing": ("properties of evaluate", "evaluate.json", put("@nothing", "model_info"), "nothing"),
    "inference: dataset_dir missing": ("properties of inference", "inference.json", drop("dataset"), "dataset"),
    "inference: evaluator missing": ("properties of inference", "inference.json", drop("evaluator"), "evaluator"),
    "no such target": (
        "weights",
        "train.json",
        put("medmamba_monai.networks.Nothing", "network_def", "_target_"),
        "Nothing",
    ),
}


@pytest.mark.parametrize(("check", "file", "change", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_seen(
    check: str, file: str, change: Callable[[dict[str, Any]], object], reason: str, bundle: Path, schemas: Path
) -> None:
    edit(bundle, file, change)
    outcome = outcomes(bundle, schemas, check)[check]
    assert outcome.state == "FAILED"
    assert reason in outcome.detail


@pytest.mark.parametrize("file", ["LICENSE", "configs/train.json", "docs/README.md", "docs/data_license.txt"])
def test_a_missing_file_is_named(file: str, bundle: Path, schemas: Path) -> None:
    (bundle / file).unlink()
    found = outcomes(bundle, schemas, "files", "changelog")
    assert file in found["files"].detail
    assert found["changelog"].state == "not run"


def test_a_network_that_cannot_be_scripted_is_seen(bundle: Path, schemas: Path) -> None:
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").write_text("")
    (bundle / "scripts" / "net.py").write_text(UNSCRIPTABLE)
    for file in ("train.json", "inference.json"):
        edit(bundle, file, put({"_target_": "scripts.net.Net", "classes": "$len(@classes)"}, "network_def"))
    found = outcomes(bundle, schemas, "network", "torchscript")
    assert found["network"].ok, found
    assert found["torchscript"].state == "FAILED"
    assert "try blocks" in found["torchscript"].detail


def test_a_version_that_the_zoo_has_is_refused(bundle: Path, schemas: Path) -> None:
    assert outcomes(bundle, schemas, "changelog")["changelog"].ok
    (bundle.parent / "model_info.json").write_text(json.dumps({f"{bundle.name}_v0.1.0": {}}))
    assert "has been released" in outcomes(bundle, schemas, "changelog")["changelog"].detail


def test_trained_weights_are_told_from_generated_ones(bundle: Path, weights: Path, schemas: Path) -> None:
    assert outcomes(bundle, schemas, "weights")["weights"].detail.startswith("GENERATED")
    shutil.copytree(weights.parent, bundle / "models")
    assert outcomes(bundle, schemas, "weights")["weights"].detail == "trained"
    edit(bundle, "inference.json", put("rgb", "color"))
    assert "channels" in outcomes(bundle, schemas, "weights")["weights"].detail


def test_a_volume_bundle_is_tried_with_volumes(bundle: Path, schemas: Path) -> None:
    """What a bundle with three axes says in its metadata and configs, made of a 2-D one."""
    edit(bundle, "metadata.json", put([32, 32, 64], *IMAGE, "spatial_shape"))
    for file in ("train.json", "inference.json"):
        edit(bundle, file, put(3, "spatial_dims"))
    edit(bundle, "train.json", put([32, 32, 64], "image_size"))
    found = outcomes(bundle, schemas, "schema", "network", "torchscript", "properties of train")
    assert all(outcome.ok for outcome in found.values()), found
    assert found["network"].detail == "1x32x32x64 -> 3"


def test_a_release_is_held_against_its_lock_and_the_package(
    bundle: Path, weights: Path, schemas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medmamba_monai.bundling.release.LARGE", 1_000_000)
    packed = pack(bundle, tmp_path / "out", Release(weights=weights, vendor=True))
    found = outcomes(packed.file, schemas, *(check.name for check in CHECKS))
    assert all(outcome.ok for outcome in found.values()), found
    assert found["files"].detail.endswith("as locked")
    assert found["vendored"].detail == "carries what it needs, unchanged"
    assert found["weights"].detail == "trained"

    shutil.unpack_archive(packed.file, tmp_path / "unpacked")
    root = tmp_path / "unpacked" / bundle.name
    module = root / "medmamba_monai" / "errors.py"
    module.write_text(module.read_text() + "\n")
    found = outcomes(root, schemas, "files")
    assert "errors.py was changed" in found["files"].detail
    (root / "lock.json").unlink()
    assert "errors.py differs" in outcomes(root, schemas, "vendored")["vendored"].detail
    model = root / "models" / "model.pt"
    model.write_bytes(model.read_bytes() + b"x")
    assert "large_files.yml" in outcomes(root, schemas, "files")["files"].detail


def test_large_weights_of_a_release_have_to_be_listed(
    bundle: Path, weights: Path, schemas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack(bundle, tmp_path / "out", Release(weights=weights))
    monkeypatch.setattr("medmamba_monai.bundling.checks.LARGE", 1_000_000)
    assert "models/model.pt" in outcomes(packed.file, schemas, "files")["files"].detail
