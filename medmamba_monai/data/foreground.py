"""Where the head is in a volume: its place in the picture and its grey values. Needs monai. Used by configs.

Magnetic resonance has no physical grey scale and fields of view differ, so both are taken from the foreground: voxels
above a tenth of the way from the 2nd to the 98th percentile (the robust range that FSL's brain extraction starts from:
Smith SM. Fast robust automated brain extraction. Human Brain Mapping 17(3), 2002).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Pad, SpatialCrop
from numpy.typing import NDArray

__all__ = ["FitForegroundd", "NormalizeForegroundd", "foreground", "window_start"]

_SHARE = 0.005  # of a plane: fewer foreground voxels are noise


def foreground(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """True where a voxel is bright enough to be part of what was scanned; nowhere in a constant volume.

    Example:
        >>> foreground(np.array([0, 0, 0, 0, 100, 120, 140], np.float32)).tolist()
        [False, False, False, False, True, True, True]
    """
    low, high = np.percentile(values, (2, 98))
    return np.asarray(values > low + 0.1 * (high - low))


def _extent(mask: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First plane across ``axis`` with foreground, and the plane after the last; all planes where there is none."""
    others = tuple(other for other in range(mask.ndim) if other != axis)
    share = mask.mean(axis=others)
    planes = np.flatnonzero(share > _SHARE)
    return (int(planes[0]), int(planes[-1]) + 1) if len(planes) else (0, mask.shape[axis])


def window_start(length: int, wanted: int, extent: tuple[int, int], end: str = "") -> int:
    """First voxel along an axis of the ``wanted`` ones to keep; below 0 where there are fewer and padding is needed.

    Args:
        length: voxels along the axis.
        wanted: voxels to keep.
        extent: first voxel of the foreground and the one after its last.
        end: "first" or "last" for the end of the foreground to keep where it is longer than ``wanted``; else its
            middle.

    Example:
        >>> window_start(100, 40, (10, 90)), window_start(100, 40, (10, 90), "last"), window_start(30, 40, (0, 30))
        (30, 50, -5)
    """
    if length <= wanted:
        return -((wanted - length) // 2)
    low, high = extent
    start = (low + high - wanted) // 2
    if high - low > wanted and end:
        start = low if end == "first" else high - wanted
    return min(max(start, 0), length - wanted)


def _top(volume: torch.Tensor) -> tuple[int, str]:
    """Axis that runs along the body and the end of it that is the head's top; (-1, "") where that is not known."""
    import nibabel

    if not isinstance(volume, MetaTensor) or not np.isfinite(volume.meta.get("spacing", np.nan)).all():
        return -1, ""
    codes = nibabel.aff2axcodes(np.asarray(volume.affine, dtype=np.float64))
    axis = next(index for index, code in enumerate(codes) if code in ("S", "I"))
    return axis, "last" if codes[axis] == "S" else "first"


class FitForegroundd(MapTransform):
    """Crop and pad volumes to one size without scaling them, centred on the foreground.

    Along the body's axis a foreground that is longer than the size keeps its top, so that neck and shoulders are
    cut off and not the brain. Volumes that are smaller are padded on both sides with their lowest value.

    Args:
        keys: keys of the volumes, (C, H, W, D).
        spatial_size: voxels along each axis.
        allow_missing_keys: do nothing for an absent key.

    Example:
        >>> FitForegroundd("image", [4, 4, 4])({"image": torch.rand(1, 2, 9, 5)})["image"].shape
        torch.Size([1, 4, 4, 4])
    """

    def __init__(
        self, keys: KeysCollection = "image", spatial_size: Sequence[int] = (), allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spatial_size = [int(length) for length in spatial_size]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with volumes of the wanted size."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._fit(item[key])
        return item

    def _fit(self, volume: torch.Tensor) -> torch.Tensor:
        mask: NDArray[np.bool_] = np.any(foreground(np.asarray(volume.detach().cpu(), dtype=np.float32)), axis=0)
        top_axis, end = _top(volume)
        shape, size = mask.shape, self.spatial_size
        begins = [0, 0, 0]
        # the body's axis first: shoulders that it cuts off must not shift the centre of the head
        for axis in sorted(range(3), key=lambda index: index != top_axis):
            extent = _extent(mask, axis)
            begins[axis] = window_start(shape[axis], size[axis], extent, end if axis == top_axis else "")
            kept = slice(max(begins[axis], 0), begins[axis] + size[axis])
            mask = mask[tuple(kept if index == axis else slice(None) for index in range(3))]
        starts = [max(begin, 0) for begin in begins]
        ends = [min(b + wanted, n) for b, wanted, n in zip(begins, size, shape, strict=True)]
        before = [max(-begin, 0) for begin in begins]
        after = [max(b + wanted - n, 0) for b, wanted, n in zip(begins, size, shape, strict=True)]
        padding = [(0, 0), *zip(before, after, strict=True)]
        lowest = float(volume.min())
        return Pad(padding, mode="constant", value=lowest)(SpatialCrop(roi_start=starts, roi_end=ends)(volume))


class NormalizeForegroundd(MapTransform):
    """Grey values of volumes to mean 0 and standard deviation 1 of the foreground, outliers cut off.

    Values are cut to the range from the 0.5th percentile of the volume to the 99.5th of the foreground; then the
    foreground's mean is subtracted and everything divided by its standard deviation. The background keeps its place
    below the tissue. The result is the same for a volume and any positive multiple of it.

    Args:
        keys: keys of the volumes, (C, H, W, D).
        allow_missing_keys: do nothing for an absent key.

    Example:
        >>> volume = torch.rand(1, 6, 6, 6)
        >>> one, two = (NormalizeForegroundd("image")({"image": v})["image"] for v in (volume, 300 * volume))
        >>> torch.allclose(one, two, atol=1e-5)
        True
    """

    def __init__(self, keys: KeysCollection = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with normalised volumes, of their own type; a constant one becomes 0."""
        item = dict(data)
        for key in self.key_iterator(item):
            values = np.asarray(item[key].detach().cpu(), dtype=np.float32)
            inside = values[foreground(values)]
            if inside.size == 0:
                inside = values.ravel()
            low, high = float(np.percentile(values, 0.5)), float(np.percentile(inside, 99.5))
            inside = np.clip(inside.astype(np.float64), low, high)
            # a foreground of one value, such as a mask, has no deviation: the whole range is the measure then
            deviation = float(inside.std())
            if deviation <= 1e-6 * (high - low):
                deviation = high - low or 1.0
            item[key] = (item[key].clamp(low, high) - float(inside.mean())) / deviation
        return item
