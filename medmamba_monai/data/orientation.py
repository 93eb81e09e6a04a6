"""Which way a volume lies: affines, canonical orientation, slices as they are looked at. Imports errors only.

Axes are named by the side they run towards: R or L, A or P, S or I. "PLS" means rows towards posterior,
columns towards the patient's left, slices towards superior: an axial slice then looks as radiologists view
it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.errors import ConfigError, DataError

__all__ = ["SLICE_AXES", "check_affine", "reorient", "spacing_of", "view_axes"]

# how a slice is looked at, by the direction it is cut across: rows and columns run towards these sides
SLICE_AXES = {"S": "PL", "I": "PL", "A": "IL", "P": "IL", "R": "IP", "L": "IP"}
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


def spacing_of(affine: NDArray[np.float64]) -> list[float]:
    """Distance between neighbouring voxels along each axis, in mm."""
    return [float(value) for value in np.sqrt((affine[:3, :3] ** 2).sum(axis=0))]


def check_affine(affine: Any, where: str) -> NDArray[np.float64]:
    """The 4 x 4 affine as float64.

    Raises:
        DataError: it is not finite or maps the volume onto a plane, so that its orientation is unknown.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    usable = matrix.shape == (4, 4) and bool(np.isfinite(matrix).all())
    if usable:
        lengths = np.array(spacing_of(matrix))
        usable = bool((lengths > 0).all()) and abs(np.linalg.det(matrix[:3, :3] / lengths)) > 1e-3
    if not usable:
        raise DataError(
            "its affine is singular, so its orientation is unknown",
            where=where,
            remedy="repair the header, or read the array as stored with orientation=None",
        )
    return matrix


def view_axes(affine: NDArray[np.float64], slice_axis: int) -> str:
    """Orientation code, slice direction last, in which slices across ``slice_axis`` are looked at.

    Example:
        >>> view_axes(np.diag([1.0, 1.0, 5.0, 1.0]), 2)
        'PLS'
    """
    import nibabel

    code = str(nibabel.aff2axcodes(affine)[slice_axis])
    return SLICE_AXES[code] + (code if code in "SAL" else _OPPOSITE[code])


def reorient(
    array: NDArray[Any], affine: NDArray[np.float64], axcodes: str
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Permute and flip the last three axes so that they run towards ``axcodes``; nothing is resampled.

    Args:
        array: (C, i, j, k).
        affine: (4, 4), voxel indices to mm in RAS.
        axcodes: three letters such as "PLS" or "RAS".

    Returns:
        The array and its affine.

    Raises:
        ConfigError: ``axcodes`` does not name three different axes.

    Example:
        >>> volume = np.arange(6).reshape(1, 1, 2, 3)
        >>> reorient(volume, np.eye(4), "PLS")[0].shape
        (1, 2, 1, 3)
    """
    from nibabel import orientations

    if len(axcodes) != 3 or {frozenset((c, _OPPOSITE.get(c, ""))) for c in axcodes} != {
        frozenset("RL"),
        frozenset("AP"),
        frozenset("SI"),
    }:
        raise ConfigError(
            f"orientation={axcodes!r}", remedy="name one of R/L, A/P and S/I for each axis, such as 'PLS'"
        )
    now = orientations.io_orientation(affine)
    change = orientations.ornt_transform(now, orientations.axcodes2ornt(tuple(axcodes)))
    shape = array.shape[1:]
    moved = np.stack([orientations.apply_orientation(channel, change) for channel in array])
    return moved, affine @ orientations.inv_ornt_aff(change, shape)
