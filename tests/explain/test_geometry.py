"""Cells of a map lie where the network saw them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medmamba_monai.explain.geometry import STRIDES, smoothed, stretched, to_pixels

from .conftest import small


def test_strides_are_those_of_the_network() -> None:
    features = small().forward_features(torch.zeros(1, 1, 64, 96))
    assert [(64 // f.shape[2], 96 // f.shape[3]) for f in features] == [(s, s) for s in STRIDES]


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (10, 13)])
def test_a_cell_peaks_over_its_own_pixels(size: tuple[int, int]) -> None:
    """Also where the last cells lie partly in the padding, or the last pixels in no cell."""
    cells = torch.zeros(1, 1, 2, 3)
    cells[0, 0, 1, 2] = 1
    pixels = to_pixels(cells, 4, size)
    assert pixels.shape == (1, 1, *size)
    rows, columns = (pixels[0, 0] == pixels.max()).nonzero().T
    assert set(rows.tolist()) <= {4, 5, 6, 7}
    assert set(columns.tolist()) <= {8, 9, 10, 11}


def test_sums_stay_where_nothing_is_cut_off() -> None:
    cells = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(to_pixels(cells / 64, 8, (32, 40)).sum((2, 3)), cells.sum((2, 3)))


def test_stretching_fills_the_size() -> None:
    assert stretched(torch.rand(1, 1, 2, 3, 4), (5, 7, 9)).shape == (1, 1, 5, 7, 9)


@pytest.mark.parametrize("size", [(9, 14), (7, 8, 10)])
def test_smoothing_is_a_normalised_gaussian(size: tuple[int, ...]) -> None:
    maps = torch.rand(2, 1, *size, dtype=torch.float64)
    options = {"sigma": (0, 0, *[1.5] * len(size)), "mode": "constant", "radius": (0, 0, *[5] * len(size))}
    shares = gaussian_filter(np.ones_like(maps.numpy()), **options)
    np.testing.assert_allclose(smoothed(maps), gaussian_filter(maps.numpy(), **options) / shares, rtol=1e-9)
