"""The copy a bundle is tried on: its made-up images and weights, and that nothing of it stays behind."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medmamba_monai.bundling.trained import generated
from medmamba_monai.bundling.trial import on_trial
from medmamba_monai.data import read_image
from medmamba_monai.errors import ConfigError
from medmamba_monai.networks.model_info import ModelInfo


def edit(bundle: Path, spatial_shape: list[int], channels: int = 1) -> None:
    file = bundle / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["network_data_format"]["inputs"]["image"].update(spatial_shape=spatial_shape, num_channels=channels)
    file.write_text(json.dumps(metadata))


def test_the_bundle_itself_is_left_alone(bundle: Path) -> None:
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    with on_trial(bundle) as trial:
        assert trial.folder.name == bundle.name
        assert trial.make_weights()
        (trial.folder / "LICENSE").write_text("")
        inside = trial.folder
    assert not inside.exists()
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


def test_weights_are_made_once_marked_and_for_the_metadata_classes(bundle: Path) -> None:
    with on_trial(bundle) as trial:
        assert trial.make_weights()
        info = ModelInfo.load(trial.folder / "models")
        assert generated(info)
        assert info.class_names == trial.class_names == ["benign", "malignant", "normal"]
        assert info.image_size == [224, 224]
        first = torch.load(trial.folder / "models" / "model.pt", weights_only=True)
        assert trial.make_weights(), "still known as random"
        again = torch.load(trial.folder / "models" / "model.pt", weights_only=True)
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_trained_weights_are_kept(bundle: Path, weights: Path) -> None:
    shutil.copytree(weights.parent, bundle / "models")
    (bundle / "models" / "checkpoint.pt").write_bytes(b"x")
    with on_trial(bundle) as trial:
        assert not trial.make_weights()
        assert (trial.folder / "models" / "model.pt").read_bytes() == weights.read_bytes()
        assert not (trial.folder / "models" / "checkpoint.pt").exists()


@pytest.mark.parametrize(("shape", "channels"), [([224, 224], 1), ([64, 96], 3), ([64, 64, 64], 1)])
def test_images_are_of_the_metadata_kind(shape: list[int], channels: int, bundle: Path) -> None:
    edit(bundle, shape, channels)
    with on_trial(bundle) as trial:
        trial.make_data()
        with (trial.data / "labels.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert {row["label"] for row in rows} == {"benign", "malignant", "normal"}
        file = trial.data / rows[0]["file"]
        if len(shape) == 3:
            import nibabel

            assert np.asarray(nibabel.load(file).dataobj).shape == (40, 40, 40)
        else:
            with Image.open(file) as picture:
                assert picture.mode == ("RGB" if channels == 3 else "L")
            assert read_image(file).array.shape[-2:] == (40, 40)


def test_code_in_scripts_is_within_reach_and_forgotten_afterwards(bundle: Path) -> None:
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").write_text("")
    (bundle / "scripts" / "net.py").write_text("answer = 42")
    path = list(sys.path)
    with on_trial(bundle):
        import scripts.net  # type: ignore[import-not-found]

        assert scripts.net.answer == 42
    assert sys.path == path
    assert not [name for name in sys.modules if name.split(".")[0] == "scripts"]


def test_a_zip_has_to_hold_one_bundle(tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    with pytest.raises(ConfigError, match=r"x.zip: cannot be unpacked"), on_trial(file):
        pass
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/readme.txt", "no bundle")
    with pytest.raises(ConfigError, match="holds 0 bundles"), on_trial(file):
        pass
