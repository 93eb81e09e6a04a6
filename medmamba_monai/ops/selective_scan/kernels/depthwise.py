"""Depthwise convolution of three pixels a side, then SiLU, on channels-last maps; and back. Imports triton only.

Maps are (batch, L, E), padded by zeros; weights are (E, taps) with 9 taps, DEEP with 27 for three spatial axes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .steps import narrow, sigmoid

__all__ = ["depthwise_backward", "depthwise_silu", "depthwise_weights"]


@triton.jit
def _shifted(
    pointer: tl.tensor,
    pixel: tl.tensor,
    e: tl.tensor,
    live: tl.tensor,
    stride: tl.tensor,
    depth: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    slab: tl.tensor,
    line: tl.tensor,
    column: tl.tensor,
    DEEP: tl.constexpr,
) -> tl.tensor:
    """The map's values at the pixels that a tap sees, zero outside of the map; 1 is the middle of each axis."""
    z = pixel // (height * width) + (slab - 1 if DEEP else 0)
    y = pixel // width % height + (line - 1)
    x = pixel % width + (column - 1)
    inside = (z >= 0) & (z < depth) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    place = ((z * height + y) * width + x).to(tl.int64) * stride
    values = tl.load(pointer + place[:, None] + e[None, :], mask=live & inside[:, None], other=0.0)
    return values.to(tl.float32)


@triton.jit
def _convolution(
    pointer: tl.tensor,
    weight_ptr: tl.tensor,
    pixel: tl.tensor,
    e: tl.tensor,
    live: tl.tensor,
    live_e: tl.tensor,
    stride: tl.tensor,
    depth: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    DEEP: tl.constexpr,
    TURNED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> tl.tensor:
    """TURNED: with the taps in reverse, as the gradient of the map wants it."""
    total = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    taps: tl.constexpr = 27 if DEEP else 9
    for slab in range(0, taps // 9):  # not unrolled: 27 taps at once would not fit into registers
        for flat in tl.static_range(9):
            values = _shifted(pointer, pixel, e, live, stride, depth, height, width, slab, flat // 3, flat % 3, DEEP)
            tap = slab * 9 + flat
            weight = tl.load(weight_ptr + e * taps + (taps - 1 - tap if TURNED else tap), mask=live_e, other=0.0)
            total += values * weight.to(tl.float32)[None, :]
    return total


@triton.jit
def depthwise_silu(
    x_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    grad_ptr: tl.tensor,
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
    BACKWARD: tl.constexpr,
) -> None:
    """Write silu(conv(x) + bias). Grid: (batch * blocks of L, blocks of channels).

    BACKWARD: write the gradient of what silu is given instead, for ``grad`` (batch, L, E) of what it returns.
    """
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = (tl.program_id(0) % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    live_e = e < channels
    length = depth * height * width
    live = (pixel < length)[:, None] & live_e[None, :]
    total = _convolution(
        x_ptr + batch * x_strides[0], weight_ptr, pixel, e, live, live_e, x_strides[1], depth, height, width,
        DEEP, False, BLOCK_P, BLOCK_E,
    )  # fmt: skip
    total += tl.load(bias_ptr + e, mask=live_e, other=0.0).to(tl.float32)[None, :]
    opening = sigmoid(total)
    row = (batch * length + pixel)[:, None] * channels + e[None, :]
    if BACKWARD:
        grad = tl.load(grad_ptr + row, mask=live, other=0.0).to(tl.float32)
        out = grad * opening * (1.0 + total * (1.0 - opening))
    else:
        out = total * opening
    tl.store(out_ptr + row, narrow(out, out_ptr), mask=live)


@triton.jit
def depthwise_backward(
    grad_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    out_ptr: tl.tensor,
    depth: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    blocks: tl.tensor,
    DEEP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Write the gradient of the map, for ``grad`` (batch, L, E) of its convolution. Grid as of ``depthwise_silu``."""
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = (tl.program_id(0) % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    live_e = e < channels
    length = depth * height * width
    live = (pixel < length)[:, None] & live_e[None, :]
    start = grad_ptr + batch * length * channels
    total = _convolution(
        start, weight_ptr, pixel, e, live, live_e, channels, depth, height, width, DEEP, True, BLOCK_P, BLOCK_E
    )
    tl.store(out_ptr + (batch * length + pixel)[:, None] * channels + e[None, :], narrow(total, out_ptr), mask=live)


@triton.jit
def depthwise_weights(
    grad_ptr: tl.tensor,
    x_ptr: tl.tensor,
    dweight_ptr: tl.tensor,
    dbias_ptr: tl.tensor,
    x_strides: tl.tensor,
    depth: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    groups: tl.tensor,
    repeats: tl.tensor,
    DEEP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Gradients of weight and bias, in parts, for ``grad`` (batch, L, E) of the convolution.

    Grid: (batch * groups of L, blocks of channels, lines of three taps). A program takes ``repeats`` blocks of pixels;
    its part is a row of dweight (batch * groups, taps, E) and, in the first line, of dbias (batch * groups, E).
    """
    batch = (tl.program_id(0) // groups).to(tl.int64)
    group = tl.program_id(0) % groups
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    line = tl.program_id(2)
    live_e = e < channels
    length = depth * height * width
    x_ptr += batch * x_strides[0]
    left = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    middle = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    right = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    total = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    for index in range(0, repeats):
        pixel = (group * repeats + index) * BLOCK_P + tl.arange(0, BLOCK_P)
        live = (pixel < length)[:, None] & live_e[None, :]
        place = (batch * length + pixel)[:, None] * channels + e[None, :]
        grad = tl.load(grad_ptr + place, mask=live, other=0.0).to(tl.float32)
        slab, row = line // 3, line % 3
        left += grad * _shifted(x_ptr, pixel, e, live, x_strides[1], depth, height, width, slab, row, 0, DEEP)
        middle += grad * _shifted(x_ptr, pixel, e, live, x_strides[1], depth, height, width, slab, row, 1, DEEP)
        right += grad * _shifted(x_ptr, pixel, e, live, x_strides[1], depth, height, width, slab, row, 2, DEEP)
        total += grad
    part = batch * groups + group
    dweight_ptr += (part * (27 if DEEP else 9) + line * 3) * channels + e
    tl.store(dweight_ptr, tl.sum(left, 0), mask=live_e)
    tl.store(dweight_ptr + channels, tl.sum(middle, 0), mask=live_e)
    tl.store(dweight_ptr + 2 * channels, tl.sum(right, 0), mask=live_e)
    if line == 0:
        tl.store(dbias_ptr + part * channels + e, tl.sum(total, 0), mask=live_e)
