"""How a scan is cut into programs, and how states lie in memory. Imports torch only: it serves where triton is missing.

A program of the scan is one warp with BLOCK_E channels. These numbers come from counting instructions and
registers of the compiled kernels (tests/ops/selective_scan/test_triton_compiled.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "BACKWARD_UNROLL",
    "FORWARD_UNROLL",
    "INTERVAL",
    "Plan",
    "Walks",
    "from_blocks",
    "make_plan",
    "make_walks",
    "power_of_two",
    "to_blocks",
]

INTERVAL = 32  # steps between saved states: a multiple of both numbers below
FORWARD_UNROLL = 4  # steps loaded ahead and computed together
BACKWARD_UNROLL = 2  # steps whose states are in registers at once; 4 spill
_LANES = 32
_TILE = 1024  # states of a program at most: 32 registers a lane
_BUSY = 1024  # programs that keep a large GPU busy, about two for each of its schedulers
_MIN_SPANS, _MIN_SPAN = 4, 64  # spans compute each exponential twice: fewer or shorter ones do not pay


class Plan(NamedTuple):
    """Sizes of the programs of a scan."""

    block_n: int  # states, padded to a power of two
    block_e: int  # channels of a program
    blocks: int  # programs side by side over the channels
    span: int  # steps of a program, a multiple of INTERVAL unless there is one span
    spans: int
    checkpoints: int  # saved states of a direction

    @property
    def state_numel(self) -> int:
        """Numbers of a direction's state, padded."""
        return self.blocks * self.block_n * self.block_e


class Walks(NamedTuple):
    """Directions that walk along the axes, as the kernels take them; see kernels/walk.py."""

    numbers: tuple[int, ...]  # six a direction
    axes: int  # two or three

    def even(self, count: int) -> bool:
        """Whether ``count`` divides every line: groups of so many steps never turn a corner."""
        return all(size % count == 0 for size in self.numbers[1::6])


def make_walks(strides: Sequence[int], directions: int) -> Walks:
    """Six numbers a direction out of start, sizes and steps of two or three axes.

    Example:
        >>> make_walks([0, 2, 3, 3, 1, 5, 2, 3, -3, -1], directions=2)  # the rows of a map of 2 x 3, forth and back
        Walks(numbers=(0, 3, 1, 0, 2, 0, 5, 3, -1, 0, 2, 0), axes=2)
    """
    each = len(strides) // directions
    axes = (each - 1) // 2
    numbers: list[int] = []
    for k in range(directions):
        start, *rest = strides[k * each : (k + 1) * each]
        sizes, steps = rest[:axes], rest[axes:]
        size, step, rows = sizes[-1], steps[-1], sizes[-2]
        leap = steps[-3] - rows * steps[-2] if axes == 3 else 0
        numbers += (start, size, step, steps[-2] - size * step, rows, leap)
    return Walks(tuple(numbers), axes)


def power_of_two(number: int) -> int:
    """The next power of two.

    Example:
        >>> power_of_two(1), power_of_two(12)
        (1, 16)
    """
    return 1 << (number - 1).bit_length()


def make_plan(slices: int, length: int, channels: int, states: int) -> Plan:
    """Cut a scan into programs.

    Args:
        slices: batch times directions.
        length: steps.
        channels: channels of a direction.
        states: states of a channel.

    Example:
        >>> make_plan(slices=4 * 64, length=3136, channels=96, states=16)
        Plan(block_n=16, block_e=32, blocks=3, span=3136, spans=1, checkpoints=98)
        >>> make_plan(slices=4, length=3136, channels=96, states=16)[3:5]
        (64, 49)
    """
    block_n = power_of_two(states)
    block_e = min(_LANES, power_of_two(channels), max(1, _TILE // block_n))
    blocks = -(-channels // block_e)
    spans = min(_BUSY // (slices * blocks), length // _MIN_SPAN)
    span = length if spans < _MIN_SPANS else -(-length // (spans * INTERVAL)) * INTERVAL
    return Plan(block_n, block_e, blocks, span, -(-length // span), -(-length // INTERVAL))


def to_blocks(state: Tensor, plan: Plan) -> Tensor:
    """Lay states (batch, K, E, N) out as the kernels have them, (batch, K, blocks, BLOCK_N, BLOCK_E) in float32."""
    batch, directions, channels, states = state.shape
    missing = (0, plan.block_n - states, 0, plan.blocks * plan.block_e - channels)
    padded = F.pad(state.float(), missing).view(batch, directions, plan.blocks, plan.block_e, plan.block_n)
    return padded.transpose(3, 4).contiguous()


def from_blocks(state: Tensor, plan: Plan, channels: int, states: int) -> Tensor:
    """Undo :func:`to_blocks` for a tensor (batch, K, state)."""
    batch, directions = state.shape[:2]
    blocks = state.view(batch, directions, plan.blocks, plan.block_n, plan.block_e).transpose(3, 4)
    return blocks.reshape(batch, directions, -1, plan.block_n)[:, :, :channels, :states]
