"""Pixel orders: permutations, neighbours, strides equal tables, both against loops written out."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai.errors import ConfigError
from medmamba_monai.ops import SCANS, direction_count, index_table, strides
from medmamba_monai.ops.orders import make_table

MAPS = [(1, 1), (3, 4), (7, 5), (8, 8), (2, 3, 4), (4, 4, 4), (3, 5, 2)]


@pytest.mark.parametrize("spatial", MAPS)
@pytest.mark.parametrize("scan", SCANS)
def test_rows_are_permutations_and_half_of_them_reversed(scan: str, spatial: tuple[int, ...]) -> None:
    table = index_table(scan, spatial)
    assert table.shape == (direction_count(scan, len(spatial)), torch.Size(spatial).numel())
    assert table.dtype == torch.int64
    assert torch.equal(table.sort(dim=1).values, torch.arange(table.shape[1]).expand_as(table))
    if scan != "raster":
        half = table.shape[0] // 2
        assert torch.equal(table[half:], table[:half].flip(1))


def test_cross_in_two_dimensions() -> None:
    height, width = 3, 4
    rows = [y * width + x for y in range(height) for x in range(width)]
    columns = [y * width + x for x in range(width) for y in range(height)]
    assert index_table("cross", (3, 4)).tolist() == [rows, columns, rows[::-1], columns[::-1]]


def test_cross_in_three_dimensions_has_each_axis_fastest() -> None:
    d, h, w = 2, 3, 4

    def at(z: int, y: int, x: int) -> int:
        return (z * h + y) * w + x

    fast_x = [at(z, y, x) for z in range(d) for y in range(h) for x in range(w)]
    fast_y = [at(z, y, x) for z in range(d) for x in range(w) for y in range(h)]
    fast_z = [at(z, y, x) for y in range(h) for x in range(w) for z in range(d)]
    forward = [fast_x, fast_y, fast_z]
    assert index_table("cross", (d, h, w)).tolist() == forward + [row[::-1] for row in forward]


@pytest.mark.parametrize("spatial", [(8, 8), (16, 16), (4, 4, 4)])
@pytest.mark.parametrize("scan", ["zigzag", "hilbert"])
def test_continuous_scans_step_to_neighbours(scan: str, spatial: tuple[int, ...]) -> None:
    for row in index_table(scan, spatial):
        places = torch.stack(torch.unravel_index(row, spatial))
        assert torch.equal((places[:, 1:] - places[:, :-1]).abs().sum(0), torch.ones(len(row) - 1, dtype=torch.int64))


def test_diagonals_grow_in_coordinate_sum() -> None:
    table = index_table("diagonal", (4, 5))
    y, x = torch.unravel_index(table, (4, 5))
    assert ((y + x)[0].diff() >= 0).all()
    assert ((y - x)[1].diff() >= 0).all()


@pytest.mark.parametrize("spatial", MAPS)
@pytest.mark.parametrize("scan", SCANS)
def test_strides_walk_the_table(scan: str, spatial: tuple[int, ...]) -> None:
    walks = strides(scan, spatial)
    if walks is None:
        assert scan in ("zigzag", "diagonal", "hilbert")
        return
    table = index_table(scan, spatial)
    assert len(walks) == len(table)
    for row, walk in zip(table.tolist(), walks, strict=True):
        visited = []
        for t in range(len(row)):
            pixel, rest = walk.start, t
            for size, step in zip(reversed(walk.sizes), reversed(walk.steps), strict=True):
                pixel += (rest % size) * step
                rest //= size
            visited.append(pixel)
        assert visited == row


def test_a_table_made_at_inference_serves_training() -> None:
    with torch.inference_mode():
        table = index_table("cross", (11, 13))
    assert not table.is_inference()
    assert index_table("cross", (11, 13)) is table


def test_a_table_made_inside_torch_func_serves_outside() -> None:
    def count(x: torch.Tensor) -> torch.Tensor:
        return x * index_table("cross", (13, 11)).sum()

    assert torch.func.grad(count)(torch.ones(())) == 4 * sum(range(143))
    assert index_table("cross", (13, 11)).data_ptr()


def test_scripts() -> None:
    scripted = torch.jit.script(make_table)
    for scan in SCANS:
        assert torch.equal(scripted(scan, [3, 5], torch.device("cpu")), index_table(scan, (3, 5)))


@pytest.mark.parametrize(("scan", "spatial"), [("spiral", (3, 3)), ("cross", (3,)), ("cross", (1, 1, 1, 1))])
def test_unknown_scans_are_refused(scan: str, spatial: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        index_table(scan, spatial)
