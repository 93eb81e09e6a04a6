"""Volumes to one voxel size in mm. Imports orientation and errors; needs monai. Used by configs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Resize

from medmamba_monai.data.orientation import spacing_of
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["ResampleToSpacingd", "check_spacing", "resampled_size"]

_LARGEST = 2**28  # voxels, a gibibyte of float32


def check_spacing(spacing: float | Sequence[float] | None) -> tuple[float, float, float] | None:
    """Three voxel lengths in mm, or None for as stored.

    Raises:
        ConfigError: not one or three finite numbers above 0.

    Example:
        >>> check_spacing(2), check_spacing([1, 1, 3]), check_spacing(None)
        ((2.0, 2.0, 2.0), (1.0, 1.0, 3.0), None)
    """
    if spacing is None:
        return None
    values = [spacing] * 3 if isinstance(spacing, (int, float)) else list(spacing)
    if len(values) != 3 or not all(np.isfinite(value) and value > 0 for value in values):
        raise ConfigError(f"spacing={spacing!r}", remedy="give one length in mm, three, or null for as stored")
    return float(values[0]), float(values[1]), float(values[2])


def resampled_size(size: Sequence[int], spacing: Sequence[float], wanted: Sequence[float]) -> tuple[int, ...]:
    """Numbers of voxels that keep the field of view, at least one along each axis.

    Example:
        >>> resampled_size([256, 256, 150], [0.94, 0.94, 1.2], [2.0, 2.0, 2.0])
        (120, 120, 90)
    """
    return tuple(max(round(n * old / new), 1) for n, old, new in zip(size, spacing, wanted, strict=True))


class ResampleToSpacingd(MapTransform):
    """Resample volumes to one voxel size, so that a millimetre is the same number of voxels in every image.

    Axes keep their directions (an oblique volume stays oblique) and the field of view its place. Linear
    interpolation; along axes that lose voxels the volume is smoothed first, so that nothing aliases.

    Args:
        keys: keys of the volumes, ``MetaTensor`` (C, H, W, D) as ``ReadImaged`` gives them.
        spacing: voxel length in mm, one number or one an axis; None leaves volumes as they are.
        allow_missing_keys: do nothing for an absent key.

    Raises:
        ConfigError: ``spacing`` is neither None nor one or three numbers above 0.

    Example:
        >>> volume = MetaTensor(torch.rand(1, 8, 8, 4), meta={"spacing": np.array([1.0, 1.0, 3.0])})
        >>> ResampleToSpacingd("image", spacing=2)({"image": volume})["image"].shape
        torch.Size([1, 4, 4, 6])
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        spacing: float | Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing = check_spacing(spacing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with resampled volumes.

        Raises:
            DataError: the spacing of a volume is not known, or the result would not fit into memory.
        """
        item = dict(data)
        if self.spacing is not None:
            for key in self.key_iterator(item):
                item[key] = self._resample(item[key], self.spacing)
        return item

    def _resample(self, volume: torch.Tensor, wanted: tuple[float, float, float]) -> torch.Tensor:
        meta = volume.meta if isinstance(volume, MetaTensor) else {}
        where = str(meta.get("filename_or_obj", "volume"))
        spacing = [float(value) for value in meta.get("spacing", [])]
        if len(spacing) != 3 or not np.isfinite(spacing).all():
            raise DataError(
                "its voxel size is not known, so it cannot be resampled",
                where=where,
                remedy="give a file that states it, or spacing=null for all volumes as stored",
            )
        size = resampled_size(volume.shape[1:], spacing, wanted)
        if int(np.prod(size, dtype=object)) > _LARGEST:
            raise DataError(
                f"would become {' x '.join(map(str, size))} voxels at {wanted} mm (it has {spacing} mm)",
                where=where,
                remedy="correct the voxel size in its header, or give a larger spacing",
            )
        result = Resize(size, mode="trilinear", anti_aliasing=True)(volume)
        if isinstance(result, MetaTensor):
            result.meta["spacing"] = np.array(spacing_of(np.asarray(result.affine, dtype=np.float64)))
        return result
