"""Pictures that other software has loaded already, brought to what reading their files would give. Imports decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medmamba_monai.data.decoded import Decoded, ReadOptions, check_size
from medmamba_monai.data.image import MedicalImage
from medmamba_monai.data.intensity import finish
from medmamba_monai.errors import DataError

__all__ = ["from_memory"]

_NAME = "image in memory"


def from_memory(picture: NDArray[Any] | torch.Tensor, options: ReadOptions) -> MedicalImage:
    """Bring a loaded picture to [0, 1] and the colours asked for.

    Loaders (MONAI Deploy's, Pillow, OpenCV) give grey values from 0 to 255, often as floats; an integer type that
    holds more, such as uint16, counts to its largest value.

    Args:
        picture: (1 or 3, H, W), rows first.
        options: see ``make_options``; the window is that of files with physical values and is not applied.

    Raises:
        DataError: another shape, or values that are not from 0 to 255.

    Example:
        >>> picture = np.full((3, 40, 40), 255.0)
        >>> from_memory(picture, ReadOptions(color="grey")).array.max()
        np.float32(1.0)
    """
    array = picture.detach().cpu().numpy() if isinstance(picture, torch.Tensor) else picture
    if array.ndim != 3 or options.spatial_dims == 3:
        raise DataError(
            f"has the shape {array.shape}",
            where=_NAME,
            remedy="give (channels, rows, columns); volumes are read from files",
        )
    check_size(array.shape[1:], options, _NAME)
    wide = array.dtype.kind == "u" and array.dtype.itemsize > 1
    white = float(np.iinfo(array.dtype).max) if wide else 255.0
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if low < 0 or high > white or (high <= 1 and bool((finite % 1).any())):
        raise DataError(
            f"has values from {low:g} to {high:g}, expected grey values from 0 to {white:g}",
            where=_NAME,
            remedy="hand the picture over as loaded, not yet scaled, or give the path of its file",
        )
    decoded = Decoded(np.asarray(array), white, meta={"format": "memory"})
    return MedicalImage(
        np.ascontiguousarray(finish(decoded, options, _NAME)), {"filename_or_obj": _NAME} | decoded.meta
    )
