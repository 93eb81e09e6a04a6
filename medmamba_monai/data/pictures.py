"""PNG, JPEG, TIFF, WebP, BMP and GIF through Pillow, in every colour mode, without trusting a header.

Imports decoded.

Rules: palette, CMYK, YCbCr, Lab and HSV pictures become RGB; alpha is dropped, not blended, as Pillow's
convert does (colours under it are data); 1-bit, 8-bit and 16-bit values are scaled by their type, 32-bit
integer and float values by their own range; the EXIF orientation is applied; of several frames or pages the
first is read unless told.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from medmamba_monai.data.decoded import Decoded, ReadOptions, check_size, pick_frame
from medmamba_monai.errors import DataError

__all__ = ["FORMATS", "decode_picture"]

# named by their plugins: Pillow knows a format only once its plugin is imported; JPEG's opens MPO, too
FORMATS = tuple(
    plugin.format
    for plugin in (
        PngImagePlugin.PngImageFile,
        JpegImagePlugin.JpegImageFile,
        TiffImagePlugin.TiffImageFile,
        WebPImagePlugin.WebPImageFile,
        BmpImagePlugin.BmpImageFile,
        GifImagePlugin.GifImageFile,
    )
)
_DEFECTS = (
    *(
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        EOFError,
        MemoryError,
    ),
    *(OverflowError, ZeroDivisionError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)
_DEFLATE_RATIO = 1032  # zlib cannot shrink data further than this


def _claims_too_much(picture: Image.Image, file_size: int) -> bool:
    """Whether a deflated or uncompressed file is too small for the pixels that its header claims."""
    rows, columns = picture.height, picture.width
    bits = 1 if picture.mode in ("1", "P", "L") else 8  # a grey or palette PNG may have 1 bit a pixel
    least = rows * columns * bits / 8
    if picture.format == "PNG":
        return least / _DEFLATE_RATIO > file_size
    if picture.format in ("BMP", "DIB") and picture.info.get("compression") in (None, 0):
        return least > file_size
    return False


def _to_array(picture: Image.Image) -> tuple[NDArray[Any], float | None]:
    """Channels-last pixels and the value that means white."""
    mode = picture.mode
    if mode == "1":
        return np.asarray(picture, dtype=np.uint8), 1.0
    if mode == "L":
        return np.asarray(picture), 255.0
    if mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16), 65535.0
    if mode in ("I", "F"):
        return np.asarray(picture), None
    if mode in ("LA", "La"):
        return np.asarray(picture.convert("LA"))[..., 0], 255.0
    if mode in ("RGBA", "RGBa", "RGBX", "PA"):
        picture = picture.convert("RGBA")
    return np.asarray(picture if mode == "RGB" else picture.convert("RGB")), 255.0


def _notes(picture: Image.Image) -> list[str]:
    notes = []
    if picture.mode in ("P", "PA"):
        notes.append("palette to RGB")
    elif picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"{picture.mode} to RGB")
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        notes.append("alpha dropped")
    return notes


def decode_picture(path: Path, options: ReadOptions) -> Decoded:
    """Decode one picture file.

    Raises:
        DataError: empty, no picture, truncated, damaged, too large, or fewer frames than asked for.
    """
    where = str(path)
    try:
        # the size is checked here, before decoding: Pillow's own warning would say it again
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # an open file, not its name: Pillow 13 maps named uncompressed TIFF files into memory and then gets
            # those with EXIF orientations 5 to 8 wrong without a word
            with path.open("rb") as stream, Image.open(stream, formats=FORMATS) as picture:
                return _decode(picture, path, options)
    except UnidentifiedImageError as error:
        raise DataError(
            "is no picture that can be read (damaged header, or a format or bit depth that is not supported)",
            where=where,
            remedy="export it again as PNG, 8-bit or 16-bit grey or 8-bit RGB",
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"claims too many pixels: {error}", where=where, remedy="shrink or tile the image") from error
    except _DEFECTS as error:
        raise DataError(
            f"cannot be decoded: {str(error) or type(error).__name__}",
            where=where,
            remedy="the file is truncated or damaged: fetch or export it again",
        ) from error


def _decode(picture: Image.Image, path: Path, options: ReadOptions) -> Decoded:
    where = str(path)
    check_size((picture.height, picture.width), options, where)
    if _claims_too_much(picture, path.stat().st_size):
        raise DataError(
            f"claims {picture.width} x {picture.height} pixels in {path.stat().st_size} bytes",
            where=where,
            remedy="the header is wrong: fetch or export the file again",
        )
    meta: dict[str, Any] = {"format": str(picture.format).lower(), "mode": picture.mode}
    frames = int(getattr(picture, "n_frames", 1)) if picture.format != "MPO" else 1
    frame = pick_frame(options.frame, frames, where) if frames > 1 else 0
    if frames > 1:
        meta |= {"frames": frames, "frame": frame}
        picture.seek(frame)
        check_size((picture.height, picture.width), options, where)
    picture.load()
    stored = picture.size
    ImageOps.exif_transpose(picture, in_place=True)
    notes = _notes(picture)
    if picture.size != stored or picture.info.get("orientation"):
        notes.append("EXIF orientation applied")
    array, full_scale = _to_array(picture)
    if notes:
        meta["notes"] = notes
    pixels = array[np.newaxis] if array.ndim == 2 else np.ascontiguousarray(np.moveaxis(array, -1, 0))
    return Decoded(pixels, full_scale, meta=meta)
