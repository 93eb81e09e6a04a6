"""The end of the mixer in one pass: sum over directions, LayerNorm, SiLU gate; and back. Imports triton only."""

from __future__ import annotations

import triton
import triton.language as tl

from .steps import narrow, sigmoid

__all__ = ["merge_norm_gate", "norm_gate_backward"]


@triton.jit
def _normalised(total: tl.tensor, live: tl.tensor, channels: tl.tensor, epsilon: tl.tensor) -> tl.tensor:
    """Rows of mean 0 and variance 1, and what each row was multiplied by."""
    mean = tl.sum(total, 1) / channels
    centred = tl.where(live, total - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / channels + epsilon)
    return centred * scale[:, None], scale


@triton.jit
def merge_norm_gate(
    parts_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    out_ptr: tl.tensor,
    total_ptr: tl.tensor,
    gate_strides: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    blocks: tl.tensor,
    epsilon: tl.tensor,
    DIRECTIONS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_E: tl.constexpr,
    SAVE: tl.constexpr,
) -> None:
    """Write norm(sum over K of parts (batch, K, L, E)) * silu(gate (batch, L, E)). Grid: (batch * blocks of L).

    SAVE: the sum goes to total (batch, L, E), for backward.
    """
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    e = tl.arange(0, BLOCK_E)
    live = (pixel < length)[:, None] & (e < channels)[None, :]
    total = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    for k in tl.static_range(DIRECTIONS):
        start = ((batch * DIRECTIONS + k) * length + pixel) * channels
        total += tl.load(parts_ptr + start[:, None] + e[None, :], mask=live, other=0.0).to(tl.float32)
    row = ((batch * length + pixel) * channels)[:, None] + e[None, :]
    if SAVE:
        tl.store(total_ptr + row, narrow(total, total_ptr), mask=live)
    normal, _ = _normalised(total, live, channels, epsilon)
    weight = tl.load(weight_ptr + e, mask=e < channels, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + e, mask=e < channels, other=0.0).to(tl.float32)
    place = batch * gate_strides[0] + pixel * gate_strides[1]
    gate = tl.load(gate_ptr + place[:, None] + e[None, :], mask=live, other=0.0).to(tl.float32)
    out = (normal * weight[None, :] + bias[None, :]) * gate * sigmoid(gate)
    tl.store(out_ptr + row, narrow(out, out_ptr), mask=live)


@triton.jit
def norm_gate_backward(
    grad_ptr: tl.tensor,
    total_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    dtotal_ptr: tl.tensor,
    dgate_ptr: tl.tensor,
    dweight_ptr: tl.tensor,
    dbias_ptr: tl.tensor,
    gate_strides: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    groups: tl.tensor,
    repeats: tl.tensor,
    epsilon: tl.tensor,
    BLOCK_P: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Gradients of norm(total) * silu(gate), for ``grad``, all (batch, L, E). Grid: (batch * groups of L).

    A program takes ``repeats`` blocks of pixels; its part of the gradients of weight and bias is a row of dweight and
    dbias (batch * groups, E), summed afterwards in a fixed order.
    """
    batch = (tl.program_id(0) // groups).to(tl.int64)
    group = (tl.program_id(0) % groups).to(tl.int64)
    e = tl.arange(0, BLOCK_E)
    live_e = e < channels
    weight = tl.load(weight_ptr + e, mask=live_e, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + e, mask=live_e, other=0.0).to(tl.float32)
    dweight = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    dbias = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    for index in range(0, repeats):
        pixel = (group * repeats + index) * BLOCK_P + tl.arange(0, BLOCK_P)
        live = (pixel < length)[:, None] & live_e[None, :]
        row = ((batch * length + pixel) * channels)[:, None] + e[None, :]
        total = tl.load(total_ptr + row, mask=live, other=0.0).to(tl.float32)
        normal, scale = _normalised(total, live, channels, epsilon)
        place = batch * gate_strides[0] + pixel * gate_strides[1]
        gate = tl.load(gate_ptr + place[:, None] + e[None, :], mask=live, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + row, mask=live, other=0.0).to(tl.float32)
        opening = sigmoid(gate)
        slope = opening * (1.0 + gate * (1.0 - opening))  # derivative of silu
        dgate = grad * (normal * weight[None, :] + bias[None, :]) * slope
        tl.store(dgate_ptr + row, narrow(dgate, dgate_ptr), mask=live)
        grad *= gate * opening
        dweight += grad * normal
        dbias += grad
        grad *= weight[None, :]
        along = tl.sum(grad * normal, 1) / channels
        mean = tl.sum(grad, 1) / channels
        dtotal = (grad - mean[:, None] - normal * along[:, None]) * scale[:, None]
        tl.store(dtotal_ptr + row, narrow(dtotal, dtotal_ptr), mask=live)
    part = (batch * groups + group) * channels + e
    tl.store(dweight_ptr + part, tl.sum(dweight, 0), mask=live_e)
    tl.store(dbias_ptr + part, tl.sum(dbias, 0), mask=live_e)
