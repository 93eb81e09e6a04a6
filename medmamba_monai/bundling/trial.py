"""A temporary copy of a bundle to try things on, with made-up images and, where none are trained, random weights."""

from __future__ import annotations

import csv
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medmamba_monai.bundling import source
from medmamba_monai.bundling.merge import read_json
from medmamba_monai.bundling.release import LOCK
from medmamba_monai.bundling.source import METADATA
from medmamba_monai.bundling.trained import GENERATED, MODEL, generated
from medmamba_monai.errors import ConfigError
from medmamba_monai.networks.model_info import FILE_NAME, ModelInfo

__all__ = ["MODES", "Trial", "on_trial"]

MODES = {"train": ("train",), "evaluate": ("train", "evaluate"), "inference": ("inference",)}
"""Config files of each way to run a bundle."""

IMAGES_A_CLASS = 8
SIDE = 40
LARGEST_UNPACKED = 4 << 30


@dataclass(frozen=True)
class Trial:
    """A copy of a bundle.

    Attributes:
        folder: the copy, with the bundle's name.
        origin: where the bundle itself lies.
        data: folder with a labels.csv and images of the bundle's kind.
    """

    folder: Path
    origin: Path
    data: Path

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The bundle's metadata as written."""
        return read_json(self.folder / METADATA)

    def files(self, mode: str) -> list[str]:
        """Return the config files of a mode."""
        return [str(self.folder / "configs" / f"{name}.json") for name in MODES[mode]]

    def workflow(self, mode: str, **overrides: Any) -> Any:
        """Build MONAI's workflow of a mode, on the CPU, with the made-up images."""
        from monai.bundle import ConfigWorkflow

        self.make_data()
        given = {"bundle_root": str(self.folder), "dataset_dir": str(self.data), "device": "cpu", "mlflow": False}
        if mode != "inference":
            # images are not read: what is looked at is how the parts fit together
            given.update(cache_rate=0.0, progress=False)
        kind = "infer" if mode == "inference" else "train"
        return ConfigWorkflow(self.files(mode), workflow_type=kind, logging_file=False, **{**given, **overrides})

    def make_data(self) -> None:
        """Write a few images of the metadata's channels and axes for each of its classes; once."""
        if self.data.exists():
            return
        self.data.mkdir()
        image = self.metadata["network_data_format"]["inputs"]["image"]
        axes = len(image["spatial_shape"])
        rng = np.random.default_rng(0)
        with (self.data / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file", "label"])
            for number, name in enumerate(self.class_names):
                for index in range(IMAGES_A_CLASS):
                    pixels = rng.integers(0, 255, (SIDE,) * axes).astype(np.uint8)
                    written = _write_image(self.data / f"{number}_{index}", pixels, image["num_channels"] == 3)
                    table.writerow([written.name, name])

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of the outputs."""
        names = self.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        return [names[key] for key in sorted(names, key=int)]

    def make_weights(self) -> bool:
        """Write random weights of the network that training would start with, where there are no weights.

        Returns:
            Whether the weights are random.
        """
        import torch

        file = self.folder / MODEL
        if file.is_file():
            return generated(ModelInfo.load(file.parent))
        parser = self.workflow("train", class_names=self.class_names).parser
        info: ModelInfo = parser.get_parsed_content("model_info")
        info.extra[GENERATED] = "random weights for a test, never trained"
        info.save(file.parent)
        torch.save(parser.get_parsed_content("network_def").state_dict(), file)
        return True


@contextmanager
def on_trial(bundle: Path) -> Iterator[Trial]:
    """Copy a bundle to a temporary folder, put its ``scripts`` within reach, and clear all away in the end.

    Args:
        bundle: a folder, or the zip of a release.

    Raises:
        ConfigError: the zip holds no bundle.
    """
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name).resolve()
        origin = _unpacked(bundle, temporary / "unpacked") if bundle.suffix == ".zip" else bundle
        folder = temporary / "trial" / origin.name
        beside = (FILE_NAME, "calibration.json", "calibration.safetensors", "model.ts")
        weights = [MODEL, *(Path(MODEL).with_name(name).as_posix() for name in beside)]
        source.copy_release(origin, folder, [*weights, LOCK, "large_files.yml"])
        before = set(sys.modules)
        sys.path.insert(0, str(folder))
        try:
            yield Trial(folder, origin, temporary / "data")
        finally:
            sys.path.remove(str(folder))
            for module in set(sys.modules) - before:
                if str(getattr(sys.modules[module], "__file__", None) or "").startswith(str(folder)):
                    del sys.modules[module]


def _unpacked(archive: Path, target: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as content:
            if sum(entry.file_size for entry in content.infolist()) > LARGEST_UNPACKED:
                raise ConfigError("unpacks to more than 4 GB", where=str(archive))
            content.extractall(target)  # leaves out .. and absolute names
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"cannot be unpacked ({error})", where=str(archive), remedy="pack it again") from error
    found = sorted(path.parents[1] for path in target.glob(f"*/{METADATA}"))
    if len(found) != 1:
        raise ConfigError(
            f"holds {len(found)} bundles", where=str(archive), remedy="give a zip with one folder, the bundle"
        )
    return found[0]


def _write_image(path: Path, pixels: np.ndarray[Any, Any], color: bool) -> Path:
    if pixels.ndim == 3:
        import nibabel

        volume = path.with_suffix(".nii.gz")
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), volume)
        return volume
    from PIL import Image

    picture = Image.fromarray(pixels).convert("RGB" if color else "L")
    picture.save(path.with_suffix(".png"))
    return path.with_suffix(".png")
