"""Windows, scaling, padding, non-finite pixels, colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from medmamba_monai.data.decoded import Decoded, ReadOptions, Window
from medmamba_monai.data.intensity import apply_window, convert_color, finish
from medmamba_monai.errors import DataError

RAMP = np.linspace(-300, 500, 81).reshape(1, 9, 9)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (100.5, 33), (0, 1)])
def test_windows_equal_pydicom(function: str, centre: float, width: float) -> None:
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = centre, width, function
    dataset.BitsStored, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 16, 0, "MONOCHROME2"
    dataset.BitsAllocated = 16
    oracle = apply_windowing(RAMP.copy(), dataset) / 65535
    np.testing.assert_allclose(apply_window(RAMP, Window(centre, width, function)), oracle, atol=1e-9)


def test_grey_is_pillows_luma_without_rounding() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    grey = convert_color(np.moveaxis(rgb, -1, 0).astype(np.float32), "grey", "x")
    assert grey.shape == (1, 50, 40)
    assert np.abs(grey[0] - np.asarray(Image.fromarray(rgb).convert("L"))).max() < 0.51


def test_color_conversions_and_refusals() -> None:
    grey = np.ones((1, 2, 3), np.float32)
    assert convert_color(grey, "rgb", "x").shape == (3, 2, 3)
    assert convert_color(grey, None, "x") is grey
    assert convert_color(np.full((3, 2, 2), 0.25, np.float32), "gray", "x") == pytest.approx(0.25)
    for channels in (2, 4, 10):
        with pytest.raises(DataError, match=f"x: has {channels} channels"):
            convert_color(np.ones((channels, 2, 2), np.float32), None, "x")


def _finish(pixels: Any, full_scale: float | None = None, **more: Any) -> np.ndarray:
    """``finish`` with the options among the arguments; "window" is the argument, not the file's."""
    options = {name: more.pop(name) for name in ("scale", "nonfinite", "window") if name in more}
    return finish(Decoded(np.asarray(pixels), full_scale, **more), ReadOptions(**options), "x")


def test_scaling_by_type_by_range_and_by_window() -> None:
    assert _finish(np.array([[[0, 128, 255]]], np.uint8), 255).tolist() == [[[0, np.float32(128 / 255), 1]]]
    np.testing.assert_allclose(_finish([[[-100.0, 0.0, 300.0]]]), [[[0, 0.25, 1]]])
    np.testing.assert_allclose(_finish([[[5.0, 5.0]]]), 0)
    window = Window(100, 400)
    physical = _finish([[[-100.0, 100.0, 900.0]]], physical=True, window=window)
    np.testing.assert_allclose(physical, [[[0, 0.5, 1]]])
    # finished grey values have no physical unit: the window argument is not for them
    np.testing.assert_allclose(_finish(np.array([[[0, 255]]], np.uint8), 255, window=window), [[[0, 1]]])


def test_argument_goes_before_the_files_window() -> None:
    decoded = Decoded(np.array([[[0.0, 10.0]]]), None, window=Window(5, 10), physical=True)
    np.testing.assert_allclose(finish(decoded, ReadOptions(), "x"), [[[0, 1]]])
    np.testing.assert_allclose(finish(decoded, ReadOptions(window=Window(10, 20)), "x"), [[[0, 0.5]]])
    assert decoded.meta["window"] == [10.0, 20.0]


def test_inversion_and_padding() -> None:
    padding = np.array([[False, False, True]])
    pixels = np.array([[[0.0, 10.0, -3024.0]]])
    np.testing.assert_allclose(_finish(pixels, padding=padding), [[[0, 1, 0]]])
    np.testing.assert_allclose(_finish(pixels, padding=padding, invert=True), [[[1, 0, 0]]])
    np.testing.assert_allclose(_finish(pixels, padding=padding, scale=None), [[[0, 10, 0]]])
    assert _finish(pixels, padding=np.ones((1, 3), bool)).tolist() == [[[0, 0, 0]]]


def test_nonfinite_policies() -> None:
    pixels = np.array([[[np.nan, np.inf, -np.inf, 1.0, 3.0]]])
    with pytest.raises(DataError, match="x: 3 of 5 pixels are NaN or infinite.*nonfinite='replace'"):
        _finish(pixels)
    decoded = Decoded(pixels, None)
    array = finish(decoded, ReadOptions(nonfinite="replace", scale=None), "x")
    assert array.tolist() == [[[1, 3, 1, 1, 3]]]
    assert decoded.meta["nonfinite"] == 3
    with pytest.raises(DataError, match="2 of 2 pixels"):
        _finish(np.array([[[np.nan, np.inf]]]), nonfinite="replace")
