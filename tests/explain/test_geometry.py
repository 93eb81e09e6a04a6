"""Cells of a map lie where the network saw them."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai.explain.geometry import STRIDES, by_patch, stretched, to_pixels

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


def test_patches_are_averaged_in_their_place() -> None:
    maps = torch.zeros(1, 1, 10, 12)
    maps[0, 0, 4:8, 8:12] = torch.tensor([3.0, -1.0]).repeat(8).view(4, 4)
    found = by_patch(maps)
    assert found.shape == maps.shape
    assert float(found.max()) <= 1
    assert found[0, 0, 5:7, 9:11].min() > found[0, 0, :3, :6].max()
    torch.testing.assert_close(
        by_patch(torch.full((1, 1, 9, 9, 9), 2.0))[..., :8, :8, :8], torch.full((1, 1, 8, 8, 8), 2.0)
    )
