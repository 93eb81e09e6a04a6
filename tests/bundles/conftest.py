"""Bundles at work: a copy of each, small synthetic images, and a way to run them inside this process."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.data.phantom_volume import write_heads

REPOSITORY = Path(__file__).parents[2]
MODES = {"train": ["train"], "evaluate": ["train", "evaluate"], "inference": ["inference"]}
SMALL = {
    "image_size": [32, 40],
    "epochs": 1,
    "batch_size": 8,
    "num_workers": 0,
    "device": "cpu",
    "progress": False,
}

# figures and explanations cost ten times what the rest of an evaluation does
NO_PICTURES: dict[str, dict[str, Any]] = {
    "train": {"report": False},
    "evaluate": {"report": False, "explain_examples": 0},
    "inference": {},
}
PICTURES: dict[str, Any] = dict.fromkeys(NO_PICTURES["evaluate"], ...)  # for one run: as without these options
VOLUME = {"image_size": [40, 32, 36], "spacing": 5}  # what differs for volumes: a field of view of 200 x 160 x 180 mm


def write_images(folder: Path, classes: list[str], per_class: int, color: bool, seed: int = 0) -> Path:
    """Write PNG files of odd sizes, one folder a class; a class has its own brightness and stripe width."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            height, width = (int(length) for length in rng.integers(40, 60, 2))
            rows = np.arange(height)[:, None, None]
            stripes = 60 * ((rows // (number + 2)) % 2) + 20 * number
            noise = rng.integers(0, 40, (height, width, 3 if color else 1))
            pixels = np.clip(stripes + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels if color else pixels[..., 0]).save(folder / name / f"{index}.png")
    return folder


@dataclass
class BundleCopy:
    """A bundle outside the repository, with data, and what its runs wrote."""

    root: Path
    data: Path
    settings: dict[str, Any] = field(default_factory=lambda: dict(SMALL))
    further: list[str] = field(default_factory=list)  # config files after those of the mode
    pictures: bool = False  # whether training and evaluation draw what a bundle draws unless told otherwise

    @property
    def metadata(self) -> dict[str, Any]:
        return json.loads((self.root / "configs" / "metadata.json").read_text())

    def files(self, mode: str) -> list[str]:
        return [str(self.root / "configs" / f"{name}.json") for name in [*MODES[mode], *self.further]]

    def workflow(self, mode: str, **overrides: Any) -> Any:
        """Build the workflow without running it; an override set to ... is left out."""
        from monai.bundle import ConfigWorkflow

        given = {
            "bundle_root": str(self.root),
            "dataset_dir": str(self.data),
            "mlflow": False,
            **({} if self.pictures else NO_PICTURES[mode]),
            **self.settings,
        }
        if mode != "train":
            del given["image_size"]
        given = {key: value for key, value in {**given, **overrides}.items() if value is not ...}
        kind = "infer" if mode == "inference" else "train"
        return ConfigWorkflow(self.files(mode), workflow_type=kind, logging_file=False, **given)

    def run(self, mode: str, **overrides: Any) -> Any:
        flow = self.workflow(mode, **overrides)
        flow.initialize()
        flow.run()
        flow.finalize()
        return flow


def copy_bundle(name: str, folder: Path, per_class: int = 10) -> BundleCopy:
    """Copy a bundle's generated files and make images, or volumes, for the classes its metadata names."""
    root = folder / "my bündles" / name
    shutil.copytree(REPOSITORY / "bundles" / name, root, ignore=shutil.ignore_patterns("models", "eval"))
    bundle = BundleCopy(root, folder / "data dir é")
    image = bundle.metadata["network_data_format"]["inputs"]["image"]
    classes = list(bundle.metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())
    if len(image["spatial_shape"]) == 3:
        bundle.settings |= VOLUME
        write_heads(bundle.data, per_class, classes)
    else:
        write_images(bundle.data, classes, per_class, image["num_channels"] == 3)
    return bundle


@pytest.fixture
def fresh(tmp_path: Path) -> BundleCopy:
    """An untrained breast ultrasound bundle."""
    return copy_bundle("breast_ultrasound_classification", tmp_path)
