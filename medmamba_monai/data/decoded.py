"""What every decoder hands on, and how it was asked.

Pixels as stored plus what is needed to give them a meaning.

Imports errors only; the decoders (pictures, dicom, nifti, npz) and intensity import it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.errors import ConfigError, DataError

__all__ = ["Decoded", "Frame", "ReadOptions", "Window", "check_size", "pick_frame"]

Frame = int | Literal["middle"] | None
_MAX_PIXELS = {2: 2**26, 3: 2**29}


@dataclass(frozen=True)
class Window:
    """A grey-value window in the units of the pixels (HU for CT).

    Attributes:
        centre: middle of the window.
        width: its width, above 0.
        function: DICOM's LINEAR, LINEAR_EXACT or SIGMOID.
    """

    centre: float
    width: float
    function: str = "LINEAR_EXACT"


@dataclass(frozen=True)
class ReadOptions:
    """The arguments of ``read_image``, which describes them, checked once."""

    color: str | None = None
    window: Window | None = None
    frame: Frame = None
    series: str | None = None
    spatial_dims: int | None = None
    orientation: str | None = "PLS"
    scale: str | None = "unit"
    nonfinite: str = "error"
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        choices: dict[str, tuple[Any, ...]] = {
            "color": (None, "grey", "gray", "rgb"),
            "spatial_dims": (None, 2, 3),
            "scale": (None, "unit"),
            "nonfinite": ("error", "replace"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r}", remedy=f"use one of {allowed}")
        if self.window is not None and not (np.isfinite(self.window.centre) and self.window.width > 0):
            raise ConfigError(f"window {self.window} is empty", remedy="give (centre, width) with a width above 0")
        if not (self.frame is None or self.frame == "middle" or (isinstance(self.frame, int) and self.frame >= 0)):
            raise ConfigError(f"frame={self.frame!r}", remedy="give a number from 0, or 'middle'")


@dataclass
class Decoded:
    """Pixels as stored.

    Attributes:
        pixels: (C, H, W) or (C, H, W, D), any numeric type, rows first.
        full_scale: the value that stands for white, where the type says so (255 for 8 bits); None where
            values are physical and only a window or their own range gives them a scale.
        window: the file's own window.
        invert: whether large values mean dark (MONOCHROME1).
        padding: True where a pixel carries no picture, in the shape of one channel; None where there is none.
        physical: whether a window argument applies (DICOM grey, NIfTI).
        meta: what is known of the file.
    """

    pixels: NDArray[Any]
    full_scale: float | None
    window: Window | None = None
    invert: bool = False
    padding: NDArray[np.bool_] | None = None
    physical: bool = False
    meta: dict[str, Any] = field(default_factory=dict)


def check_size(shape: tuple[int, ...], options: ReadOptions, where: str, spatial_dims: int = 2) -> None:
    """Refuse a size before memory is taken for it.

    Args:
        shape: rows, columns and slices that the file claims.
        options: holds the limit; None means 2**26 pixels for a picture and 2**29 voxels for a volume.
        where: file for the message.
        spatial_dims: 2 or 3, for the default limit.

    Raises:
        DataError: a side below 1, or too many pixels.
    """
    size = " x ".join(str(side) for side in shape)
    if min(shape, default=0) < 1:
        raise DataError(f"claims a size of {size}", where=where, remedy="the file is damaged: fetch or export it anew")
    limit = options.max_pixels or _MAX_PIXELS[spatial_dims]
    count = 1
    for side in shape:
        count *= int(side)
    if count > limit:
        raise DataError(
            f"claims {size} pixels, more than the limit of {limit}",
            where=where,
            remedy="if the size is right, shrink or tile the image, or raise max_pixels",
        )


def pick_frame(frame: Frame, count: int, where: str) -> int:
    """Number of the frame to read: the first unless told, "middle" for the one in the middle.

    Raises:
        DataError: there is no such frame.

    Example:
        >>> pick_frame(None, 30, "cine.dcm"), pick_frame("middle", 30, "cine.dcm")
        (0, 15)
    """
    index = count // 2 if frame == "middle" else (frame or 0)
    if index >= count:
        raise DataError(
            f"has {count} frames, frame {index} was asked for",
            where=where,
            remedy=f"ask for 0 to {count - 1}",
        )
    return index
