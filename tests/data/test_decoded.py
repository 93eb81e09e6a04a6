"""Reading options, size limits and frames."""

from __future__ import annotations

from typing import Any

import pytest

from medmamba_monai.data.decoded import ReadOptions, Window, check_size, pick_frame
from medmamba_monai.errors import ConfigError, DataError


@pytest.mark.parametrize(
    "arguments",
    [
        {"color": "blue"},
        {"spatial_dims": 4},
        {"scale": "z"},
        {"nonfinite": "ignore"},
        {"window": Window(40, 0)},
        {"window": Window(float("nan"), 10)},
        {"frame": -1},
        {"frame": "last"},
    ],
)
def test_options_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        ReadOptions(**arguments)


def test_size_limits() -> None:
    check_size((8192, 8192), ReadOptions(), "x")
    check_size((512, 512, 2000), ReadOptions(), "x", 3)
    with pytest.raises(DataError, match=r"x: claims 8193 x 8192 pixels, more than the limit of 67108864"):
        check_size((8193, 8192), ReadOptions(), "x")
    with pytest.raises(DataError, match="more than the limit of 99"):
        check_size((10, 10), ReadOptions(max_pixels=99), "x")
    for shape in ((0, 5), (-5, 5), ()):
        with pytest.raises(DataError, match="claims a size"):
            check_size(shape, ReadOptions(), "x")
    # a product that would overflow 64 bits
    with pytest.raises(DataError, match="more than the limit"):
        check_size((2**31, 2**31, 2**31), ReadOptions(), "x", 3)


def test_frames() -> None:
    assert [pick_frame(None, 7, "x"), pick_frame(6, 7, "x"), pick_frame("middle", 7, "x")] == [0, 6, 3]
    with pytest.raises(DataError, match="has 7 frames, frame 7 was asked for.*0 to 6"):
        pick_frame(7, 7, "x")
