"""A classification bundle in the zoo's manner, written for another network, trains and predicts with MedMamba."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import REPOSITORY, write_images

SIZES = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64]}
LOADING = [
    {"_target_": "LoadImaged", "keys": "image", "reader": "PILReader"},
    {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": -1},
    {"_target_": "ScaleIntensityd", "keys": "image"},
    {"_target_": "Resized", "keys": "image", "spatial_size": [32, 32]},
]
COMMON = {
    "imports": ["$import glob", "$import os"],
    "bundle_root": ".",
    "ckpt_dir": "$@bundle_root + '/models'",
    "dataset_dir": "/workspace/data",
    "device": "$torch.device('cpu')",
    "network_def": {
        "_target_": "TorchVisionFCModel",
        "model_name": "inception_v3",
        "num_classes": 4,
        "pool": None,
        "use_conv": False,
        "bias": True,
        "pretrained": False,
    },
    "network": "$@network_def.to(@device)",
    "files": "$sorted(glob.glob(os.path.join(@dataset_dir, '*', '*.png')))",
}
INFERENCE = {
    **COMMON,
    "preprocessing": {"_target_": "Compose", "transforms": LOADING},
    "dataset": {
        "_target_": "Dataset",
        "data": "$[{'image': f} for f in @files]",
        "transform": "@preprocessing",
    },
    "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 4},
    "inferer": {"_target_": "SimpleInferer"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
    },
    "handlers": [
        {
            "_target_": "CheckpointLoader",
            "load_path": "$@ckpt_dir + '/model.pt'",
            "load_dict": {"model": "@network"},
        },
        {
            "_target_": "ClassificationSaver",
            "output_dir": "$@bundle_root + '/eval'",
            "batch_transform": "$lambda batch: [item['image'].meta for item in batch]",
            "output_transform": "$monai.handlers.from_engine(['pred'])",
        },
    ],
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
    },
    "run": ["$@evaluator.run()"],
}
TRAIN = {
    **COMMON,
    "names": "$sorted({os.path.basename(os.path.dirname(f)) for f in @files})",
    "items": "$[{'image': f, 'label': @names.index(os.path.basename(os.path.dirname(f)))} for f in @files]",
    "train": {
        "dataset": {
            "_target_": "Dataset",
            "data": "@items",
            "transform": {"_target_": "Compose", "transforms": LOADING},
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 4, "shuffle": True},
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [
            {
                "_target_": "CheckpointSaver",
                "save_dir": "@ckpt_dir",
                "save_dict": {"model": "@network"},
                "save_final": True,
                "final_filename": "model.pt",
            }
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": 1,
            "device": "@device",
            "train_data_loader": "@train#dataloader",
            "network": "@network",
            "loss_function": {"_target_": "torch.nn.CrossEntropyLoss"},
            "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.001},
            "inferer": "@train#inferer",
            "train_handlers": "@train#handlers",
        },
    },
    "run": ["$@train#trainer.run()"],
}


@pytest.fixture
def zoo_bundle(tmp_path: Path) -> Path:
    """Its configs, as a zoo's author writes them, and four classes of small colour pictures."""
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    for name, content in (("train", TRAIN), ("inference", INFERENCE)):
        (tmp_path / "bundle" / "configs" / f"{name}.json").write_text(json.dumps(content))
    write_images(tmp_path / "data", ["A", "B", "C", "D"], 3, color=True)
    return tmp_path / "bundle"


def run(bundle: Path, mode: str, *options: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--bundle_root", "."]
    command += ["--config_file", f"configs/{mode}.json", "--dataset_dir", str(bundle.parent / "data"), *options]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def in_process(bundle: Path, mode: str, **overrides: Any) -> Any:
    from monai.bundle import ConfigWorkflow

    kind = "train" if mode == "train" else "infer"
    given = {"bundle_root": str(bundle), "dataset_dir": str(bundle.parent / "data"), **overrides}
    flow = ConfigWorkflow(str(bundle / "configs" / f"{mode}.json"), workflow_type=kind, logging_file=False, **given)
    flow.initialize()
    flow.run()
    return flow


@pytest.mark.parametrize("target", ["medmamba_monai.networks.MedMamba", "monai.networks.nets.MedMamba"])
def test_its_network_is_replaced(target: str, zoo_bundle: Path) -> None:
    network = {"_target_": target, "num_classes": 4, **SIZES}
    # MONAI's own name exists once the package is imported, which an override of `imports` sees to
    imports = {"imports": [*COMMON["imports"], "$import medmamba_monai"]}
    flow = in_process(zoo_bundle, "train", network_def=network, **imports)
    assert type(flow.network_def).__name__ == "MedMamba"
    state = torch.load(zoo_bundle / "models" / "model.pt", weights_only=True)
    in_process(zoo_bundle, "inference", network_def=network, **imports)
    assert len((zoo_bundle / "eval" / "predictions.csv").read_text().splitlines()) == 12
    assert any(name.startswith("stages.0.") for name in state.get("model", state))


@pytest.mark.slow
def test_its_network_is_replaced_on_the_command_line(zoo_bundle: Path) -> None:
    options = ["--network_def", "{'_target_':'medmamba_monai.networks.medmamba_nano','num_classes':4}"]
    run(zoo_bundle, "train", *options)
    state = torch.load(zoo_bundle / "models" / "model.pt", weights_only=True)
    assert any(name.startswith("stages.0.") for name in state.get("model", state))
