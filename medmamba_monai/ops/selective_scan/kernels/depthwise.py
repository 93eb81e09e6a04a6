"""Depthwise convolution of three pixels a side, then SiLU, on channels-last maps. Imports triton only."""

from __future__ import annotations

import triton
import triton.language as tl

from .steps import narrow, sigmoid

__all__ = ["depthwise_silu"]


@triton.jit
def depthwise_silu(
    x_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    x_strides: tl.tensor,
    depth: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    blocks: tl.tensor,
    DEEP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Write silu(conv(x) + bias), x (batch, L, E) padded by zeros, weight (taps, E).

    DEEP: three spatial axes and 27 taps instead of two and 9. Grid: (batch * blocks of L, blocks of channels).
    """
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = (tl.program_id(0) % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    live_e = e < channels
    length = depth * height * width
    live = (pixel < length)[:, None] & live_e[None, :]
    z, y, x = pixel // (height * width), pixel // width % height, pixel % width
    base = x_ptr + batch * x_strides[0]
    total = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    total += tl.load(bias_ptr + e, mask=live_e, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(27 if DEEP else 9):
        tz = z + (tap // 9 - 1 if DEEP else 0)
        ty = y + (tap // 3 % 3 - 1)
        tx = x + (tap % 3 - 1)
        inside = (tz >= 0) & (tz < depth) & (ty >= 0) & (ty < height) & (tx >= 0) & (tx < width)
        place = ((tz * height + ty) * width + tx).to(tl.int64) * x_strides[1]
        value = tl.load(base + place[:, None] + e[None, :], mask=live & inside[:, None], other=0.0)
        weight = tl.load(weight_ptr + tap * channels + e, mask=live_e, other=0.0)
        total += value.to(tl.float32) * weight.to(tl.float32)[None, :]
    out = total * sigmoid(total)
    tl.store(out_ptr + (batch * length + pixel)[:, None] * channels + e[None, :], narrow(out, out_ptr), mask=live)
