"""Affines, canonical orientation and slice views against nibabel."""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest

from medmamba_monai.data.orientation import check_affine, reorient, spacing_of, view_axes
from medmamba_monai.errors import ConfigError, DataError

CODES = ["".join(order) for pairs in itertools.permutations(["LR", "PA", "IS"]) for order in itertools.product(*pairs)]


def _affine(code: str) -> np.ndarray:
    ornt = nibabel.orientations.axcodes2ornt(tuple(code))
    affine = np.zeros((4, 4))
    for axis, (target, flip) in enumerate(ornt):
        affine[int(target), axis] = flip * (axis + 1.5)
    affine[:, 3] = [10, -20, 5, 1]
    return affine


@pytest.mark.parametrize("code", CODES)
def test_every_orientation_turns_into_every_view_without_moving_a_voxel(code: str) -> None:
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    affine = _affine(code)
    for target in ("PLS", "RAS", "IPL"):
        turned, new = reorient(array, affine, target)
        assert nibabel.aff2axcodes(new) == tuple(target)
        # the value at each point of space is the same
        for index in itertools.product(*(range(side) for side in array.shape[1:])):
            point = affine @ [*index, 1]
            there = np.rint(np.linalg.solve(new, point))[:3].astype(int)
            np.testing.assert_array_equal(turned[(slice(None), *there)], array[(slice(None), *index)])


def test_ras_equals_nibabel_canonical() -> None:
    data = np.random.default_rng(0).normal(size=(3, 4, 5))
    image = nibabel.Nifti1Image(data, _affine("PIL"))
    oracle = nibabel.as_closest_canonical(image)
    ours, affine = reorient(data[np.newaxis], image.affine, "RAS")
    np.testing.assert_array_equal(ours[0], oracle.get_fdata())
    np.testing.assert_allclose(affine, oracle.affine)


def test_views() -> None:
    ras = np.eye(4)
    assert [view_axes(ras, axis) for axis in (0, 1, 2)] == ["IPL", "ILA", "PLS"]
    assert view_axes(_affine("LPI"), 2) == "PLS"
    assert spacing_of(_affine("PIL")) == [1.5, 2.5, 3.5]


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.ones((4, 4)), np.eye(3)])
def test_singular_affines(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="x: its affine is singular.*orientation=None"):
        check_affine(bad, "x")


@pytest.mark.parametrize("code", ["RAA", "RA", "RLS", "XYZ", "RASS"])
def test_bad_codes(code: str) -> None:
    with pytest.raises(ConfigError, match="orientation="):
        reorient(np.zeros((1, 2, 2, 2)), np.eye(4), code)
