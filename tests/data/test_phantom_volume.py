"""The synthetic heads: the same for a seed, and read alike from every kind of file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medmamba_monai.data.folders import list_images
from medmamba_monai.data.image import read_image
from medmamba_monai.data.orientation import reorient
from medmamba_monai.data.phantom_volume import (
    CLASS_NAMES,
    phantom_head,
    write_heads,
    write_nifti,
    write_series,
)


def test_a_seed_gives_one_head_and_classes_differ_in_their_ventricles() -> None:
    first, affine = phantom_head("wide", 3)
    np.testing.assert_array_equal(first, phantom_head("wide", 3)[0])
    assert (first != phantom_head("wide", 4)[0]).any()
    shares = {}
    for label in CLASS_NAMES:
        volume, _ = phantom_head(label, 3)
        middle = volume[15:29, 8:28, 18:22].astype(float)
        shares[label] = (middle < 0.5 * np.percentile(middle, 95)).mean()
    assert shares["wide"] > 1.5 * shares["narrow"]
    np.testing.assert_allclose(affine @ [(44 - 1) / 2, (36 - 1) / 2, (40 - 1) / 2, 1], [0, 0, 0, 1])


@pytest.mark.parametrize("axes", ["RAS", "PLS", "IPR", "LSA"])
def test_every_file_gives_the_head_back(axes: str, tmp_path: Path) -> None:
    volume, affine = phantom_head("narrow", 1)
    write_nifti(tmp_path / "x.nii.gz", volume, affine, axes)
    turned, new = reorient(volume[np.newaxis], affine, axes)  # sagittal and coronal series, too
    write_series(tmp_path / "x", turned[0], new)
    for place in (tmp_path / "x.nii.gz", tmp_path / "x"):
        image = read_image(place, spatial_dims=3, scale=None)
        np.testing.assert_array_equal(image.array[0], volume)
        np.testing.assert_allclose(image.meta["affine"], affine, atol=1e-4)


def test_folders_of_both_kinds(tmp_path: Path) -> None:
    items = list_images(write_heads(tmp_path / "heads", 3), dicom_series=True)
    kinds = [f"{name}/head{rest}" for name in CLASS_NAMES for rest in ("0.nii", "1.nii.gz", "2")]
    assert [item["file"] for item in items] == kinds
