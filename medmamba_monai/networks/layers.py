"""Small layers of MedMamba: patch embedding, patch merging, channel interleaving, drop path. Imports torch only.

Maps are channels-last, (B, *spatial, C), with two or three spatial axes; the same classes serve both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "CONVOLUTION",
    "DropPath",
    "PatchEmbedding",
    "PatchMerging",
    "channels_first",
    "channels_last",
    "interleave",
]

CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


def channels_first(x: Tensor) -> Tensor:
    """View (B, *spatial, C) as (B, C, *spatial)."""
    return x.movedim(-1, 1)


def channels_last(x: Tensor) -> Tensor:
    """View (B, C, *spatial) as (B, *spatial, C)."""
    return x.movedim(1, -1)


def interleave(left: Tensor, right: Tensor) -> Tensor:
    """Shuffle the channels of two halves: left 0, right 0, left 1, right 1, ...

    Equals concatenation followed by a channel shuffle with two groups (ShuffleNet, arXiv 1707.01083).

    Args:
        left: (..., C/2).
        right: (..., C/2).

    Returns:
        (..., C).
    """
    return torch.stack([left, right], dim=-1).flatten(-2)


def _pad_to_multiple(x: Tensor, multiple: int, first_axis: int) -> Tensor:
    """Append zeros so that every spatial axis, from ``first_axis`` on, becomes a multiple; channels-last if it is 1."""
    amounts: list[int] = [0, 0] if first_axis == 1 else []
    padded = False
    last = x.dim() - 2 if first_axis == 1 else x.dim() - 1
    for axis in range(last, first_axis - 1, -1):
        missing = -x.shape[axis] % multiple
        padded = padded or missing > 0
        amounts += [0, missing]
    return F.pad(x, amounts) if padded else x


class PatchEmbedding(nn.Module):
    """Convolution over patches of 4 pixels a side, then LayerNorm.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        dim: channels of the map.
        pad: append zeros where a side is no multiple of 4, instead of dropping the rest.
    """

    def __init__(self, spatial_dims: int, in_channels: int, dim: int, pad: bool) -> None:
        super().__init__()
        self.pad = pad
        self.proj = CONVOLUTION[spatial_dims](in_channels, dim, kernel_size=4, stride=4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, in_channels, *spatial) to (B, *spatial/4, dim)."""
        if self.pad:
            image = _pad_to_multiple(image, 4, 2)
        return self.norm(channels_last(self.proj(image)))


class PatchMerging(nn.Module):
    """Halve every spatial axis: neighbours become channels, are normalised and reduced to ``2 * dim``.

    Neighbours are taken with the first axis running fastest, in 2-D (0,0), (1,0), (0,1), (1,1) as (row, column).

    Args:
        spatial_dims: 2 or 3.
        dim: channels of the map that comes in.
        pad: append zeros to odd axes, instead of dropping the last row.
    """

    def __init__(self, spatial_dims: int, dim: int, pad: bool) -> None:
        super().__init__()
        neighbours = 2**spatial_dims
        self.pad = pad
        self.norm = nn.LayerNorm(neighbours * dim)
        self.reduction = nn.Linear(neighbours * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, *spatial, dim) to (B, *spatial/2, 2*dim)."""
        if self.pad:
            x = _pad_to_multiple(x, 2, 1)
        rank = x.dim() - 2
        folded = [x.shape[0]]
        for axis in range(1, rank + 1):
            half = x.shape[axis] // 2
            if x.shape[axis] % 2 == 1:
                x = x.narrow(axis, 0, 2 * half)
            folded += [half, 2]
        places = [1 + 2 * axis for axis in range(rank)]
        offsets = [2 * rank - 2 * axis for axis in range(rank)]
        x = x.reshape(folded + [x.shape[-1]]).permute([0] + places + offsets + [2 * rank + 1])
        return self.reduction(self.norm(x.flatten(rank + 1)))


class DropPath(nn.Module):
    """Drop a residual branch for whole samples while training (stochastic depth, arXiv 1603.09382).

    Args:
        rate: probability of dropping a sample's branch; the others are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, ...) to (B, ...)."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = [x.shape[0]] + [1] * (x.dim() - 1)
        return x * x.new_empty(shape).bernoulli_(keep) / keep

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"rate={self.rate:.3f}"
