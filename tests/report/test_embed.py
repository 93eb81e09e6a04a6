"""Pictures in a page are the files, or smaller ones where they would not fit."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.errors import DataError
from medmamba_monai.report.embed import embed


def noise(path: Path, side: int) -> Path:
    Image.fromarray(np.random.default_rng(side).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def test_a_picture_is_its_file(tmp_path: Path) -> None:
    file = noise(tmp_path / "a.png", 30)
    picture = embed({"a": file})["a"]
    kind, content = picture.address.split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == file.read_bytes()
    assert (picture.width, picture.height) == (30, 30)


def test_the_largest_becomes_smaller(tmp_path: Path) -> None:
    files = {"large": noise(tmp_path / "a.png", 700), "small": noise(tmp_path / "b.png", 30)}
    pictures = embed(files, budget=300_000)
    assert sum(len(picture.content) for picture in pictures.values()) <= 300_000
    assert pictures["small"].kind == "png"
    with Image.open(io.BytesIO(pictures["large"].content)) as picture:
        assert picture.format == "JPEG"


def test_what_cannot_be_embedded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not fit"):
        embed({"a": noise(tmp_path / "a.png", 300)}, budget=100)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.png: is no picture"):
        embed({"b": tmp_path / "b.png"})
