"""Volumes to one voxel size, compared with MONAI's own resampling through affines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing

from medmamba_monai.data.phantom_volume import phantom_head, write_nifti
from medmamba_monai.data.reader import ReadImaged
from medmamba_monai.data.spacing import ResampleToSpacingd, check_spacing
from medmamba_monai.errors import ConfigError, DataError


def _head(tmp_path: Path, axes: str = "RAS") -> MetaTensor:
    volume, affine = phantom_head("wide", 0)
    write_nifti(tmp_path / f"{axes}.nii", volume, affine, axes)
    return ReadImaged(color="grey", spatial_dims=3, scale=None)({"image": str(tmp_path / f"{axes}.nii")})["image"]


def test_finer_voxels_agree_with_monais_resampling(tmp_path: Path) -> None:
    head = _head(tmp_path)
    ours = ResampleToSpacingd(spacing=2.5)({"image": head})["image"]
    assert ours.shape == (1, 88, 72, 64)
    np.testing.assert_allclose(ours.meta["spacing"], [2.5, 2.5, 2.5])
    # MONAI aligns the centres of the first voxels, this the edges of the volume: compare at the same millimetres
    start = np.asarray(head.affine) @ [-0.25, -0.25, -0.1875, 1]
    np.testing.assert_allclose(np.asarray(ours.affine)[:3, 3], start[:3], atol=1e-4)
    other = Spacing(pixdim=(1.25, 1.25, 1.25), mode="bilinear", padding_mode="border")(head)
    inverse = np.linalg.inv(np.asarray(other.affine, dtype=np.float64))
    for index in np.ndindex(4, 4, 4):
        place = np.array(index) * 10 + 20
        there = inverse @ np.asarray(ours.affine, dtype=np.float64) @ [*place, 1]
        nearest = np.rint(there[:3]).astype(int)
        np.testing.assert_allclose(there[:3], nearest, atol=0.51)
        block = np.asarray(other)[0][tuple(slice(max(n - 1, 0), n + 2) for n in nearest)]
        assert block.min() - 1 <= float(ours[0][tuple(place)]) <= block.max() + 1


def test_means_survive_coarser_voxels_and_nothing_aliases(tmp_path: Path) -> None:
    head = _head(tmp_path)
    coarse = ResampleToSpacingd(spacing=[10, 10, 8])({"image": head})["image"]
    assert coarse.shape == (1, 22, 18, 20)
    assert float(coarse.mean()) == pytest.approx(float(head.mean()), rel=0.02)
    stripes = torch.zeros(1, 24, 24, 24)
    stripes[:, ::2] = 1
    volume = MetaTensor(stripes, meta={"spacing": np.ones(3)})
    inner = ResampleToSpacingd(spacing=3)({"image": volume})["image"][:, 2:-2]
    assert float((inner - 0.5).abs().max()) < 0.12


def test_the_same_head_whatever_way_it_was_stored(tmp_path: Path) -> None:
    one, two = (ResampleToSpacingd(spacing=3)({"image": _head(tmp_path, axes)})["image"] for axes in ("RAS", "IPL"))
    np.testing.assert_allclose(one.numpy(), two.numpy(), atol=1e-2)
    np.testing.assert_allclose(one.affine, two.affine, atol=1e-4)


def test_none_leaves_everything_as_it_is(tmp_path: Path) -> None:
    head = _head(tmp_path)
    assert ResampleToSpacingd()({"image": head})["image"] is head


@pytest.mark.parametrize("spacing", [0, -1, [1, 2], [1, 2, float("nan")]])
def test_a_spacing_that_makes_no_sense(spacing: Any) -> None:
    with pytest.raises(ConfigError, match="spacing="):
        check_spacing(spacing)


def test_unknown_and_absurd_voxel_sizes_are_refused() -> None:
    unknown = MetaTensor(torch.rand(1, 4, 4, 4), meta={"spacing": np.full(3, np.nan), "filename_or_obj": "x.npz"})
    with pytest.raises(DataError, match=r"x\.npz: its voxel size is not known.*spacing=null"):
        ResampleToSpacingd(spacing=1)({"image": unknown})
    with pytest.raises(DataError, match="not known"):
        ResampleToSpacingd(spacing=1)({"image": torch.rand(1, 4, 4, 4)})
    metres = MetaTensor(torch.rand(1, 4, 4, 4), meta={"spacing": np.full(3, 1000.0)})
    with pytest.raises(DataError, match="would become 4000 x 4000 x 4000 voxels"):
        ResampleToSpacingd(spacing=1)({"image": metres})
