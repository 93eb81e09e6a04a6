"""Small data sets and files made on the spot, shared by the tests of medmamba_monai.data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeImages = Callable[[Path, Mapping[str, int]], Path]


@pytest.fixture
def make_images() -> MakeImages:
    """Function that writes ``count`` different 4 x 4 PNG files into each folder of a mapping folder -> count."""

    def make(root: Path, counts: Mapping[str, int]) -> Path:
        rng = np.random.default_rng(0)
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (4, 4), dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{index}.png")
        return root

    return make
