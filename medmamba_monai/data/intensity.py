"""From stored values to float32 in [0, 1]: windows, scaling, padding, non-finite pixels, grey and colour.

Imports decoded and errors. The rules, in the order in which they apply, are in ``finish``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.data.decoded import Decoded, ReadOptions, Window
from medmamba_monai.errors import DataError

__all__ = ["apply_window", "convert_color", "finish"]

# ITU-R BT.601 luma, the weights that Pillow's "L" uses
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def apply_window(values: NDArray[Any], window: Window) -> NDArray[np.float64]:
    """Grey values of a window in [0, 1], by the formulas of DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Example:
        >>> apply_window(np.array([-110.0, 40.0, 190.0]), Window(40, 300)).tolist()
        [0.0, 0.5, 1.0]
    """
    x = np.asarray(values, dtype=np.float64)
    if window.function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (x - window.centre) / window.width)))
    if window.function == "LINEAR" and window.width > 1:
        y = (x - (window.centre - 0.5)) / (window.width - 1) + 0.5
    elif window.function == "LINEAR":
        y = (x > window.centre - 0.5).astype(np.float64)
    else:
        y = (x - window.centre) / window.width + 0.5
    return np.asarray(np.clip(y, 0, 1))


def convert_color(array: NDArray[np.float32], color: str | None, where: str) -> NDArray[np.float32]:
    """Grey (1 channel) or RGB (3 channels) of a picture that has either.

    Grey from RGB is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, as in Pillow), without rounding; RGB from grey
    is the grey value three times.

    Args:
        array: (C, *spatial).
        color: "grey" (or "gray"), "rgb", or None to keep what is there.
        where: file for the message.

    Raises:
        DataError: the picture has neither 1 nor 3 channels.
    """
    channels = array.shape[0]
    if channels not in (1, 3):
        raise DataError(
            f"has {channels} channels", where=where, remedy="give grey (1 channel) or RGB (3 channels) images"
        )
    if color in ("grey", "gray") and channels == 3:
        return np.tensordot(_LUMA, array, axes=1)[np.newaxis].astype(np.float32, copy=False)
    if color == "rgb" and channels == 1:
        return np.repeat(array, 3, axis=0)
    return array


def _replace_nonfinite(pixels: NDArray[Any], options: ReadOptions, meta: dict[str, Any], where: str) -> NDArray[Any]:
    if pixels.dtype.kind not in "fc":
        return pixels
    finite = np.isfinite(pixels)
    count = int(pixels.size - np.count_nonzero(finite))
    meta["nonfinite"] = count
    if count == 0:
        return pixels
    if options.nonfinite == "error" or count == pixels.size:
        raise DataError(
            f"{count} of {pixels.size} pixels are NaN or infinite",
            where=where,
            remedy="repair the file" + ("" if count == pixels.size else ", or read it with nonfinite='replace'"),
        )
    inside = pixels[finite]
    return np.nan_to_num(pixels, nan=inside.min(), posinf=inside.max(), neginf=inside.min())


def _unit(decoded: Decoded, pixels: NDArray[Any], options: ReadOptions) -> NDArray[np.float32]:
    window = options.window if decoded.physical and options.window else decoded.window
    if window is not None:
        decoded.meta["window"] = [float(window.centre), float(window.width)]
        return apply_window(pixels, window).astype(np.float32)
    if decoded.full_scale is not None:
        array = pixels.astype(np.float32)
        array /= np.float32(decoded.full_scale)
        return array
    counted = pixels if decoded.padding is None else pixels[:, ~decoded.padding]
    low, high = (float(counted.min()), float(counted.max())) if counted.size else (0.0, 0.0)
    decoded.meta["value_range"] = [low, high]
    if high <= low:
        return np.zeros(pixels.shape, dtype=np.float32)
    return np.clip((pixels.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32)


def finish(decoded: Decoded, options: ReadOptions, where: str) -> NDArray[np.float32]:
    """Float32 pixels of a decoded file.

    1. Non-finite pixels are refused, or replaced (NaN and -inf by the lowest finite value, +inf by the
    highest) and
       counted in meta["nonfinite"].
    2. To [0, 1]: by the window argument where values are physical; else by the file's window; else by the
    type's
       white (255, 65535, 2**bits - 1); else from the lowest to the highest value of this image (a constant:
       0).
    3. MONOCHROME1 is turned: x becomes 1 - x.
    4. Padding pixels become 0, black.
    5. Grey or RGB as asked (``convert_color``).

    With ``scale=None`` steps 2 and 3 are left out and padding becomes the lowest value of the picture.

    Raises:
        DataError: non-finite pixels, or channels that are neither grey nor RGB.
    """
    pixels = _replace_nonfinite(decoded.pixels, options, decoded.meta, where)
    if options.scale is None:
        array = pixels.astype(np.float32)
        blank = array[:, ~decoded.padding].min(initial=np.inf) if decoded.padding is not None else 0.0
        blank = blank if np.isfinite(blank) else 0.0
    else:
        array = _unit(decoded, pixels, options)
        blank = 0.0
        if decoded.invert:
            array = np.float32(1) - array
    if decoded.padding is not None:
        array[:, decoded.padding] = blank
    return convert_color(array, options.color, where)
