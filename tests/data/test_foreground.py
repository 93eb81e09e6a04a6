"""Where the head is: foreground, one size without scaling, one scale of grey values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medmamba_monai.data.foreground import FitForegroundd, NormalizeForegroundd, foreground, window_start
from medmamba_monai.data.reader import ReadImaged
from medmamba_monai.data.spacing import ResampleToSpacingd


def _volume(shape: tuple[int, ...], axes: str = "PLS") -> MetaTensor:
    """Noise of a few units; the axes run where ``axes`` says."""
    directions = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, letter in enumerate(axes):
        row, sign = directions[letter]
        affine[row, column] = sign
    noise = np.random.default_rng(0).uniform(0, 3, (1, *shape)).astype(np.float32)
    return MetaTensor(torch.from_numpy(noise), affine=torch.from_numpy(affine), meta={"spacing": np.ones(3)})


def test_noise_is_no_foreground() -> None:
    volume = np.asarray(_volume((30, 30, 30))[0])
    volume[10:20, 10:20, 10:20] = 100
    assert foreground(volume).sum() == 1000
    assert not foreground(np.full((5, 5, 5), 7.0, np.float32)).any()
    vessels = np.zeros((30, 30, 30), np.float32)
    vessels[3, 4, :20] = 1  # less than 2 % of the volume
    assert foreground(vessels).sum() == 20


@pytest.mark.parametrize(
    ("length", "wanted", "extent", "end", "start"),
    [
        (100, 40, (50, 70), "", 40),
        (100, 40, (0, 10), "", 0),
        (100, 40, (90, 100), "", 60),
        (100, 40, (20, 90), "last", 50),
        (100, 40, (20, 90), "first", 20),
        (100, 40, (50, 70), "last", 40),
        (40, 40, (3, 9), "last", 0),
        (31, 40, (3, 9), "last", -4),
    ],
)
def test_window(length: int, wanted: int, extent: tuple[int, int], end: str, start: int) -> None:
    assert window_start(length, wanted, extent, end) == start


@pytest.mark.parametrize("axes", ["PLS", "RAI", "SPL", "LIA"])
def test_the_head_is_kept_and_the_shoulders_are_not(axes: str) -> None:
    # in millimetres: head 20 to 50 from the right and 30 to 60 from the front, shoulders all over below 40
    place = {"R": slice(20, 50), "L": slice(50, 80), "P": slice(30, 60), "A": slice(40, 70)}
    upper = {"S": slice(40, 90), "I": slice(10, 60)}
    lower = {"S": slice(0, 40), "I": slice(60, 100)}
    volume = _volume((100, 100, 100), axes)
    volume[(0, *(lower.get(code, slice(None)) for code in axes))] = 50
    volume[(0, *((place | upper)[code] for code in axes))] = 100
    fitted = FitForegroundd(spatial_size=[50, 50, 50])({"image": volume})["image"]
    assert fitted.shape == (1, 50, 50, 50)
    assert int((fitted == 100).sum()) == 30 * 30 * 50
    assert int((fitted == 50).sum()) == 0
    for axis, code in enumerate(axes):
        planes = torch.nonzero((fitted[0] == 100).sum(dim=[other for other in range(3) if other != axis]))
        assert (int(planes[0]), int(planes[-1])) == ((0, 49) if code in "SI" else (10, 39))
    # the affine still says where each voxel lies
    first = torch.nonzero(volume[0] == 100)[0]
    moved = torch.nonzero(fitted[0] == 100)[0]
    there = np.asarray(fitted.affine) @ [*moved.tolist(), 1]
    np.testing.assert_allclose(np.asarray(volume.affine) @ [*first.tolist(), 1], there)


def test_small_volumes_are_padded_with_their_lowest_value() -> None:
    volume = _volume((20, 60, 7))
    volume += 5
    fitted = FitForegroundd(spatial_size=[40, 40, 40])({"image": volume})["image"]
    assert fitted.shape == (1, 40, 40, 40)
    torch.testing.assert_close(fitted[0, 10:30, :, 16:23].as_tensor(), volume[0, :, 10:50].as_tensor())
    assert (fitted[0, :10] == volume.min()).all()
    assert (fitted[..., 23:] == volume.min()).all()


def test_without_an_affine_the_middle_is_kept() -> None:
    volume = torch.zeros(1, 10, 10, 30)
    volume[..., 2:28] = 1
    volume[..., 15] = 5
    fitted = FitForegroundd(spatial_size=[10, 10, 10])({"image": volume})["image"]
    assert int(torch.nonzero(fitted[0, 5, 5] == 5)) == 5


def test_units_and_sizes_of_the_field_of_view_make_no_difference() -> None:
    volume = _volume((40, 40, 40))
    volume[:, 10:30, 10:30, 10:30] += 100 * torch.rand(20, 20, 20, generator=torch.Generator().manual_seed(0))
    normalise = NormalizeForegroundd()
    one = normalise({"image": volume})["image"]
    scaled = normalise({"image": 17.5 * volume})["image"]
    torch.testing.assert_close(one.as_tensor(), scaled.as_tensor(), atol=1e-4, rtol=1e-4)
    inside = one[0, 10:30, 10:30, 10:30]
    assert float(inside.mean()) == pytest.approx(0, abs=0.15)
    assert float(inside.std()) == pytest.approx(1, abs=0.15)
    assert float(one[0, :5].max()) < -1, "the background must stay below the tissue"
    outlier = volume.clone()
    outlier[0, 15, 15, 15] = 1e6
    cut = normalise({"image": outlier})["image"]
    assert float(cut.max()) < 5
    torch.testing.assert_close(cut[0, :15].as_tensor(), one[0, :15].as_tensor(), atol=0.01, rtol=0)


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_constant_volumes_become_nothing(value: float) -> None:
    assert not NormalizeForegroundd()({"image": torch.full((1, 4, 4, 4), value)})["image"].any()


def test_a_mask_stays_finite() -> None:
    mask = torch.zeros(1, 10, 10, 10)
    mask[:, 3:7, 3:7, 3:7] = 30000
    values = NormalizeForegroundd()({"image": mask})["image"]
    assert values.unique().tolist() == [-1.0, 0.0]


def test_real_heads(shared: Path) -> None:
    folder = shared / "data" / "brain_mri_3d"
    places = [folder / f"{name}.nii.gz" for name in ("pd_chris", "t1gd_skullstripped", "monai_anatomical")]
    places.append(shared / "data" / "dicom" / "series_torchio")
    read = ReadImaged(color="grey", spatial_dims=3, scale=None)
    for place in places:
        whole = ResampleToSpacingd(spacing=4)(read({"image": str(place)}))
        fitted = FitForegroundd(spatial_size=[48, 48, 48])(whole)["image"]
        assert fitted.shape == (1, 48, 48, 48)
        lost = float(whole["image"].clamp(min=0).sum() - fitted.clamp(min=0).sum())
        assert lost < 0.06 * float(whole["image"].clamp(min=0).sum()), place
        values = NormalizeForegroundd()({"image": fitted})["image"]
        assert torch.isfinite(values).all()
        assert 1 < float(values.max()) < 8
        assert -6 < float(values.min()) < -0.2
