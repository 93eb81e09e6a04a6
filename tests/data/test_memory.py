"""A picture handed over in memory gives the pixels that its file gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medmamba_monai.data import ReadImaged
from medmamba_monai.data.decoded import ReadOptions
from medmamba_monai.data.memory import from_memory
from medmamba_monai.errors import DataError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("color", ["grey", "rgb"])
@pytest.mark.parametrize("stored", ["grey", "rgb"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, torch.float32])
def test_memory_and_file_agree(color: str, stored: str, kind: Any, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (40, 50, 3) if stored == "rgb" else (40, 50), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = ReadImaged("image", color=color)
    rows = np.atleast_3d(pixels).transpose(2, 0, 1)
    loaded = torch.from_numpy(rows).to(kind) if kind is torch.float32 else rows.astype(kind)
    expected = read({"image": str(tmp_path / "a.png")})["image"]
    torch.testing.assert_close(read({"image": loaded})["image"], expected, atol=1e-6, rtol=0)


def test_sixteen_bits_count_to_their_own_white() -> None:
    pixels = np.full((1, 40, 40), 65535, dtype=np.uint16)
    assert from_memory(pixels, ReadOptions()).array.max() == 1


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((1, 40, 40), 0.5), "not yet scaled"),
        (np.full((1, 40, 40), 300.0), "expected grey values from 0 to 255"),
        (np.full((1, 40, 40), -1000.0), "from -1000"),
        (np.zeros((40, 40)), "has the shape"),
        (np.zeros((1, 2, 40, 40)), "has the shape"),
        (np.zeros((4, 40, 40)), "4 channels"),
        (np.full((1, 40, 40), np.nan), "NaN"),
    ],
)
def test_what_cannot_be_meant_is_refused(pixels: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        from_memory(pixels, ReadOptions())


def test_black_is_a_picture() -> None:
    assert from_memory(np.zeros((1, 40, 40)), ReadOptions(color="rgb")).array.shape == (3, 40, 40)
