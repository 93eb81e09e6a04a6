"""A picture with a few examples of every class, to see at a glance what a data set holds. Imports storage."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medmamba_monai.data.storage import write_atomically

__all__ = ["TILE", "tile", "write_contact_sheet"]

TILE = 96
_LABEL = 14


def tile(array: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Picture (C, H, W) or middle slice of a volume (C, H, W, D) as (96, 96, 3), its shape kept, on black.

    A slice is shown from its 1st to its 99th percentile: the range of a volume is that of its brightest vessel.

    Example:
        >>> tile(np.ones((1, 10, 20), np.float32)).shape
        (96, 96, 3)
    """
    if array.ndim == 4:
        array = array[..., array.shape[-1] // 2]
        low, high = np.percentile(array, (1, 99))
        array = (array - low) / (high - low if high > low else 1.0)
    levels = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(np.moveaxis(levels, 0, -1)))
    picture = picture.convert("RGB")
    picture.thumbnail((TILE, TILE))
    canvas = Image.new("RGB", (TILE, TILE))
    canvas.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    return np.asarray(canvas)


def write_contact_sheet(
    path: str | os.PathLike[str], tiles: Mapping[str, Sequence[NDArray[np.uint8]]], columns: int = 8
) -> None:
    """Write a PNG with one row a class: its name, then its first tiles.

    Args:
        path: file to write.
        tiles: class name -> tiles, see ``tile``.
        columns: tiles in a row.

    Raises:
        DataError: the file cannot be written.
    """
    height = TILE + _LABEL
    sheet = Image.new("RGB", (columns * TILE, max(len(tiles), 1) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, examples) in enumerate(tiles.items()):
        # Pillow's built-in font knows Latin letters only
        draw.text((2, row * height + 1), name.encode("latin-1", "replace").decode("latin-1"), fill="black")
        for column, example in enumerate(examples[:columns]):
            sheet.paste(Image.fromarray(example), (column * TILE, row * height + _LABEL))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
