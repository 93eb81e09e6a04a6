"""From cells of a map to pixels of the image, exactly where the network saw them. Imports torch only.

MedMamba cuts an image into cells from the first corner on and appends zeros at the far side (or drops the rest), so
cell ``i`` of a map of stride ``s`` covers the pixels ``i * s`` to ``(i + 1) * s - 1`` whatever the image's size.
Stretching a map to the image's size, as is usual for other networks, would shift it by up to a cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["STRIDES", "smoothed", "stretched", "to_pixels"]

STRIDES = (4, 8, 16, 32)
"""Pixels a cell is wide after each of the four stages."""

_WIDTH, _REACH = 1.5, 5  # pixels
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def stretched(cells: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate a map (B, C, *cells) linearly to (B, C, *size)."""
    return F.interpolate(cells, size=list(size), mode=_LINEAR[len(size)], align_corners=False)


def to_pixels(cells: Tensor, stride: int, size: Sequence[int]) -> Tensor:
    """Interpolate a map linearly between the centres of its cells.

    Args:
        cells: (B, C, *cells).
        stride: pixels a cell is wide.
        size: of the image.

    Returns:
        (B, C, *size); zero where a network that crops looked at no pixel.

    Example:
        >>> to_pixels(torch.tensor([[[0.0, 1.0]]]), 2, [3])
        tensor([[[0.0000, 0.2500, 0.7500]]])
    """
    covered = [count * stride for count in cells.shape[2:]]
    pixels = stretched(cells, covered)
    amounts: list[int] = []
    for axis in range(len(covered) - 1, -1, -1):
        amounts += [0, size[axis] - covered[axis]]  # negative amounts cut the padding off
    return F.pad(pixels, amounts)


def smoothed(maps: Tensor) -> Tensor:
    """Average a map (B, 1, *spatial) over a bell of 1.5 pixels standard deviation; outside the image nothing counts.

    From pixel to pixel a gradient follows the filters of the patch embedding, which nobody can read. Averages over
    whole patches would move peaks away from what is smaller than a few patches.
    """
    reach = torch.arange(-_REACH, _REACH + 1, device=maps.device, dtype=maps.dtype)
    bell = torch.exp(-0.5 * (reach / _WIDTH) ** 2)[None, None]
    for axis in range(2, maps.dim()):
        lines = maps.movedim(axis, -1)
        flat = lines.reshape(-1, 1, lines.shape[-1])
        shares = F.conv1d(torch.ones_like(flat[:1]), bell, padding=_REACH)
        maps = (F.conv1d(flat, bell, padding=_REACH) / shares).view(lines.shape).movedim(-1, axis)
    return maps
