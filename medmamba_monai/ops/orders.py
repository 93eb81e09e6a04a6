"""A direction of a scan is a pixel order over the spatial axes, never a flipped or transposed tensor.

Pixels are numbered in storage (row-major) order. An order is a row of an index table: ``table[k, t]`` is the pixel that
direction ``k`` visits at step ``t``. Orders that walk along the axes are also known by strides (:class:`Strides`).
Imports errors only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError

__all__ = ["SCANS", "Strides", "direction_count", "index_table", "make_table", "strides"]

_MAX_TABLES = 256
SCANS = ("cross", "raster", "bidirectional", "zigzag", "diagonal", "hilbert")


class Strides(NamedTuple):
    """A direction that walks along the axes: step ``t`` visits ``start + sum(digit_i(t) * step_i)``.

    The digits of ``t`` are taken in mixed radix ``sizes``, the last one running fastest.
    """

    start: int
    sizes: tuple[int, ...]
    steps: tuple[int, ...]


def direction_count(scan: str, spatial_dims: int) -> int:
    """Number of directions of a scan.

    Args:
        scan: one of :data:`SCANS`.
        spatial_dims: 2 or 3.

    Raises:
        ConfigError: for an unknown scan or number of axes.

    Example:
        >>> direction_count("cross", 2), direction_count("cross", 3), direction_count("raster", 3)
        (4, 6, 1)
    """
    if scan not in SCANS:
        raise ConfigError(f"unknown scan {scan!r}", where="scan", remedy=f"use one of {', '.join(SCANS)}")
    if spatial_dims not in (2, 3):
        raise ConfigError(f"{spatial_dims} spatial axes", where="spatial_dims", remedy="use 2 or 3")
    return {"raster": 1, "bidirectional": 2, "hilbert": 2 * spatial_dims}.get(scan, 2 * spatial_dims)


def strides(scan: str, spatial: tuple[int, ...]) -> list[Strides] | None:
    """Directions as strides; None where the scan does not walk along the axes.

    Args:
        scan: one of :data:`SCANS`.
        spatial: (H, W) or (D, H, W).
    """
    if scan not in ("cross", "raster", "bidirectional"):
        return None
    rank = len(spatial)
    pixels, steps = 1, [0] * rank
    for axis in range(rank - 1, -1, -1):
        steps[axis] = pixels
        pixels *= spatial[axis]
    forward = []
    for fastest in range(rank - 1, -1, -1) if scan == "cross" else [rank - 1]:
        axes = [axis for axis in range(rank) if axis != fastest] + [fastest]
        forward.append(Strides(0, tuple(spatial[a] for a in axes), tuple(steps[a] for a in axes)))
    backward = [Strides(pixels - 1, d.sizes, tuple(-step for step in d.steps)) for d in forward]
    return forward if scan == "raster" else forward + backward


def _axis_fastest(pixels: Tensor, axis: int) -> Tensor:
    return pixels.movedim(axis, -1)


def _snake(pixels: Tensor) -> Tensor:
    """Walk the last axis back and forth: each line starts where the one before ended, in 3-D each slice too."""
    result = pixels.clone()
    if pixels.dim() == 3:
        result[1::2] = result[1::2].flip(1)
        lines = result.reshape(-1, pixels.shape[-1])
    else:
        lines = result
    lines[1::2] = lines[1::2].flip(-1)
    return lines.flatten()


def _coordinates(pixels: Tensor) -> Tensor:
    """Coordinates (rank, L) of the pixels of a map, in storage order."""
    ranges = [torch.arange(size, device=pixels.device) for size in pixels.shape]
    return torch.stack([grid.flatten() for grid in torch.meshgrid(ranges, indexing="ij")])


def _diagonals(pixels: Tensor) -> Tensor:
    """Walk the diagonals of equal coordinate sum, one after the other."""
    level = _coordinates(pixels).sum(0)
    return pixels.flatten()[torch.argsort(level, stable=True)]


def _hilbert(pixels: Tensor) -> Tensor:
    """Walk the Hilbert curve of the enclosing power-of-two box and leave out what lies outside the map.

    Coordinates become Hilbert indices by Skilling's transformation (AIP Conf. Proc. 707, 381, 2004).
    """
    rank = pixels.dim()
    bits = 1
    for size in pixels.shape:
        while (1 << bits) < size:
            bits += 1
    x = list(_coordinates(pixels).unbind(0))
    level = 1 << (bits - 1)
    while level > 1:  # undo the excess rotations, from the coarsest bit on
        mask = level - 1
        for i in range(rank):
            high = (x[i] & level) != 0
            swap = (x[0] ^ x[i]) & mask
            x0 = torch.where(high, x[0] ^ mask, x[0] ^ swap)
            if i > 0:
                x[i] = torch.where(high, x[i], x[i] ^ swap)
            x[0] = x0
        level = level >> 1
    for i in range(1, rank):  # Gray code
        x[i] = x[i] ^ x[i - 1]
    correction = torch.zeros_like(x[0])
    level = 1 << (bits - 1)
    while level > 1:
        correction = torch.where((x[rank - 1] & level) != 0, correction ^ (level - 1), correction)
        level = level >> 1
    key = torch.zeros_like(x[0])
    for bit in range(bits - 1, -1, -1):
        for i in range(rank):
            key = key * 2 + (((x[i] ^ correction) >> bit) & 1)
    return pixels.flatten()[torch.argsort(key)]


def make_table(scan: str, spatial: list[int], device: torch.device) -> Tensor:
    """Index table of a scan, made anew; plain torch, so that TorchScript can compile it.

    Args:
        scan: one of :data:`SCANS`.
        spatial: sizes of the 2 or 3 spatial axes.
        device: where the table shall live.

    Returns:
        (K, L) int64; the first half of the rows runs forward, the second half (except for raster) backward.
    """
    rank = len(spatial)
    length = 1
    for size in spatial:
        length *= size
    pixels = torch.arange(length, device=device).view(spatial)
    rows: list[Tensor] = []
    if scan == "raster" or scan == "bidirectional":
        rows.append(pixels.flatten())
    else:
        for axis in range(rank - 1, -1, -1):
            turned = _axis_fastest(pixels, axis)
            if scan == "cross":
                rows.append(turned.flatten())
            elif scan == "zigzag":
                rows.append(_snake(turned))
            elif scan == "diagonal":
                # the other families of diagonals: those of the map mirrored along one axis
                rows.append(_diagonals(pixels if axis == rank - 1 else pixels.flip(axis + 1)))
            else:
                rows.append(_hilbert(turned))
    if scan != "raster":
        for k in range(len(rows)):
            rows.append(rows[k].flip(0))
    return torch.stack(rows)


_tables: dict[tuple[str, tuple[int, ...], str], Tensor] = {}


def index_table(scan: str, spatial: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Index table of a scan, kept for the next call. Do not write into it.

    Args:
        scan: one of :data:`SCANS`.
        spatial: (H, W) or (D, H, W).
        device: where the table shall live.

    Returns:
        (K, L) int64, each row a permutation of 0..L-1.

    Raises:
        ConfigError: for an unknown scan or number of axes.

    Example:
        >>> index_table("cross", (2, 3)).tolist()
        [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]]
    """
    direction_count(scan, len(spatial))
    if torch.compiler.is_compiling():  # symbolic sizes and fake tensors must not enter the cache
        return make_table(scan, list(spatial), torch.device(device))
    key = (scan, tuple(int(size) for size in spatial), str(device))
    table = _tables.get(key)
    if table is None:
        with torch.inference_mode(False):  # a table first made at inference must serve training later
            table = make_table(scan, list(key[1]), torch.device(device))
        if type(table) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(table):
            if len(_tables) >= _MAX_TABLES:
                _tables.clear()
            _tables[key] = table
    return table
