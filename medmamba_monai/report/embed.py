"""Pictures inside a page: as data addresses, made smaller where the page would become too large."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from medmamba_monai.errors import DataError

__all__ = ["BUDGET", "Picture", "embed"]

BUDGET = 3_400_000  # bytes of all pictures; base64 adds a third, the whole page stays below 5 MB
LEAST_SIDE = 320


class Picture:
    """A PNG or JPEG in memory.

    Args:
        content: its bytes.

    Raises:
        OSError: it is no picture.
    """

    def __init__(self, content: bytes) -> None:
        from PIL import Image

        with Image.open(io.BytesIO(content)) as picture:
            self.width, self.height = picture.size
            self.kind = str(picture.format).lower()
        self.content = content

    @property
    def address(self) -> str:
        """The picture as a data address."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.content).decode('ascii')}"

    def smaller(self) -> Picture:
        """The same as a JPEG; one that is a JPEG already at three quarters of its size."""
        from PIL import Image

        with Image.open(io.BytesIO(self.content)) as picture:
            plain = picture.convert("RGB")
        if self.kind == "jpeg":
            plain.thumbnail((self.width * 3 // 4, self.height * 3 // 4))
        stream = io.BytesIO()
        plain.save(stream, "JPEG", quality=85)
        return Picture(stream.getvalue())


def embed(files: Mapping[str, Path], budget: int = BUDGET) -> dict[str, Picture]:
    """Read pictures, the largest of them made smaller until all fit.

    Args:
        files: name → PNG or JPEG file.
        budget: bytes for all of them.

    Raises:
        DataError: a file is no picture, or they cannot be made small enough.
    """
    pictures = {}
    for name, file in files.items():
        try:
            pictures[name] = Picture(file.read_bytes())
        except OSError as error:
            raise DataError(
                f"is no picture: {error}", where=str(file), remedy="remove it, and make the report again"
            ) from error
    while sum(len(picture.content) for picture in pictures.values()) > budget:
        largest = max(pictures, key=lambda name: len(pictures[name].content))
        if max(pictures[largest].width, pictures[largest].height) < LEAST_SIDE and pictures[largest].kind == "jpeg":
            raise DataError(f"{len(pictures)} pictures do not fit into {budget} bytes", remedy="explain fewer images")
        pictures[largest] = pictures[largest].smaller()
    return pictures
