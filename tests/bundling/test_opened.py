"""A trained bundle opened outside a run: the network and preprocessing of its own inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.transforms import Compose, EnsureTyped
from PIL import Image

from medmamba_monai.bundling.opened import find_places, open_trained, read_prepared
from medmamba_monai.data import FitForegroundd, ReadImaged, ResampleToSpacingd
from medmamba_monai.data.phantom_volume import write_heads
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.metrics import PredictionTable


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A grey image of odd size."""
    file = tmp_path / "lesion.png"
    pixels = np.random.default_rng(0).integers(0, 256, (47, 61), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def test_predicts_what_inference_writes(bundle: Path, weights: Path, picture: Path, tmp_path: Path) -> None:
    opened = open_trained(weights.parent, bundle, device="cpu")
    image = opened.read(str(picture))
    with torch.no_grad():
        found = opened.network(image.tensor[None]).softmax(1)
    (tmp_path / "new").mkdir()
    picture.rename(tmp_path / "new" / picture.name)
    flow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"), workflow_type="infer", logging_file=False,
        bundle_root=str(bundle), ckpt_dir=str(weights.parent), dataset_dir=str(tmp_path / "new"),
        output_dir=str(tmp_path / "out"), device="cpu", num_workers=0,
    )  # fmt: skip
    flow.initialize()
    flow.run()
    table = PredictionTable.read(tmp_path / "out" / "predictions.csv")
    assert table.class_names == opened.class_names
    np.testing.assert_allclose(found, table.probabilities, atol=1e-6)


def test_maps_return_to_the_pixels_of_the_file(bundle: Path, weights: Path, picture: Path) -> None:
    image = open_trained(weights.parent, bundle, device="cpu").read(str(picture))
    assert image.picture.shape == (1, 47, 61)
    assert image.to_file(torch.ones(2, *image.tensor.shape[1:])).shape == (2, 47, 61)


def test_maps_of_volumes_return_to_the_voxels_of_the_file(tmp_path: Path) -> None:
    """A resampled, cropped and padded head: what was in the middle of a voxel before is there again."""
    file = next(write_heads(tmp_path, per_class=1).rglob("*.nii"))
    steps = [
        ReadImaged("image", color="grey", spatial_dims=3, scale=None, orientation="PLS"),
        ResampleToSpacingd("image", spacing=6),
        FitForegroundd("image", spatial_size=[40, 28, 36]),
        EnsureTyped("image", dtype=torch.float32, track_meta=False),
    ]
    prepared = read_prepared(Compose(steps), str(file))
    assert prepared.tensor.shape == (1, 40, 28, 36)
    assert prepared.picture.shape[1:] != prepared.tensor.shape[1:]
    back = prepared.to_file(prepared.tensor)
    assert back.shape == prepared.picture.shape
    seen = prepared.to_file(torch.ones(1, 40, 28, 36)) > 0.999
    assert seen.mean() > 0.3
    alike = np.corrcoef(back[seen], prepared.picture[seen])[0, 1]
    shifted = np.corrcoef(np.roll(back, 3, axis=1)[seen], prepared.picture[seen])[0, 1]
    assert alike > 0.9 > shifted


def test_places_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a bundle"):
        find_places(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").touch()
    with pytest.raises(ConfigError, match="--bundle"):
        find_places(tmp_path / "models")


def test_a_device_that_is_not_there_is_refused(bundle: Path, weights: Path) -> None:
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ConfigError, match=f"'{device}' cannot be used"):
            open_trained(weights.parent, bundle, device=device)
