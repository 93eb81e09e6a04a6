"""The commands as users type them: from another folder, with spaces and accents in paths, as processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .conftest import REPOSITORY, BundleCopy, copy_bundle

OPTIONS = ["--image_size", "32", "--batch_size", "8", "--epochs", "1", "--device", "cpu", "--mlflow", "false"]


def run(
    bundle: BundleCopy, mode: str, *options: str, launcher: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the bundle as a process whose working directory is neither the repository nor the bundle."""
    files = bundle.files("train") if mode == "multi_gpu_train" else bundle.files(mode)
    if mode == "multi_gpu_train":
        files.append(str(bundle.root / "configs" / "multi_gpu_train.json"))
    config = files[0] if len(files) == 1 else repr(files)
    elsewhere = bundle.root.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    command = [sys.executable, *launcher, "-m", "monai.bundle", "run", "--config_file", config]
    command += ["--bundle_root", str(bundle.root), "--dataset_dir", str(bundle.data), *options]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)
    assert list(elsewhere.iterdir()) == [], "a run writes nothing into the working directory"
    return done


def test_training_by_the_command_line(tmp_path: Path) -> None:
    bundle = copy_bundle("chest_xray_classification", tmp_path)
    done = run(bundle, "train", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert "epoch 1 of 1" in done.stdout
    assert f"wrote {bundle.root / 'models' / 'model.pt'}" in done.stdout
    assert torch.load(bundle.root / "models" / "model.pt", weights_only=True)
    assert not (bundle.root / "eval" / "mlruns.db").exists()
    assert json.loads((bundle.root / "eval" / "train_config.json").read_text())["mlflow"] is False


@pytest.mark.slow
def test_a_mistake_ends_with_its_reason(fresh: BundleCopy) -> None:
    done = run(fresh, "train", *OPTIONS, "--epoch", "5")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("ConfigError: override: the key 'epoch' is not known")


@pytest.mark.slow
def test_two_processes_train_what_one_process_evaluates_and_uses(fresh: BundleCopy) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    options = [option for option in OPTIONS if option not in ("--device", "cpu", "--mlflow", "false")]
    done = run(fresh, "multi_gpu_train", *options, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1 of 1") == 1
    state = torch.load(fresh.root / "models" / "model.pt", weights_only=True)
    assert not [name for name in state if name.startswith("module.")]
    calibration = json.loads((fresh.root / "models" / "calibration.json").read_text())
    datalist = json.loads((fresh.root / "eval" / "datalist.json").read_text())
    assert calibration["n"] == len(datalist["validation"]), "both processes' images, each once"

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{fresh.root / 'eval' / 'mlruns.db'}")
    runs = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    assert [r.info.status for r in runs] == ["FINISHED"]

    for mode in ("evaluate", "inference"):
        done = run(fresh, mode, "--mlflow", "false", "--device", "cpu")
        assert done.returncode == 0, done.stderr
    with (fresh.root / "eval" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 30


@pytest.mark.slow
def test_a_preset_by_the_command_line(tmp_path: Path) -> None:
    bundle = copy_bundle("gi_endoscopy_classification", tmp_path)
    bundle.further = ["dataset_kvasir"]
    done = run(bundle, "train", *OPTIONS)
    assert done.returncode == 0, done.stderr
    bundle.data = tmp_path / "nowhere"
    done = run(bundle, "train", *OPTIONS)
    assert done.returncode != 0
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("Get it from: https://datasets.simula.no/kvasir (licence: for research and education;")
    assert "  ulcerative-colitis/*.jpg" in lines
