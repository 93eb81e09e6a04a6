"""The end of the mixer in one pass: sum over directions, LayerNorm, SiLU gate. Imports triton only."""

from __future__ import annotations

import triton
import triton.language as tl

from .steps import narrow, sigmoid

__all__ = ["merge_norm_gate"]


@triton.jit
def merge_norm_gate(
    parts_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    out_ptr: tl.tensor,
    gate_strides: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    blocks: tl.tensor,
    epsilon: tl.tensor,
    DIRECTIONS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_E: tl.constexpr,
) -> None:
    """Write norm(sum over K of parts (batch, K, L, E)) * silu(gate (batch, L, E)). Grid: (batch * blocks of L)."""
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    e = tl.arange(0, BLOCK_E)
    live = (pixel < length)[:, None] & (e < channels)[None, :]
    total = tl.zeros([BLOCK_P, BLOCK_E], tl.float32)
    for k in tl.static_range(DIRECTIONS):
        start = ((batch * DIRECTIONS + k) * length + pixel) * channels
        total += tl.load(parts_ptr + start[:, None] + e[None, :], mask=live, other=0.0).to(tl.float32)
    mean = tl.sum(total, 1) / channels
    centred = tl.where(live, total - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / channels + epsilon)
    weight = tl.load(weight_ptr + e, mask=e < channels, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + e, mask=e < channels, other=0.0).to(tl.float32)
    place = batch * gate_strides[0] + pixel * gate_strides[1]
    gate = tl.load(gate_ptr + place[:, None] + e[None, :], mask=live, other=0.0).to(tl.float32)
    out = (centred * scale[:, None] * weight[None, :] + bias[None, :]) * gate * sigmoid(gate)
    tl.store(out_ptr + (batch * length + pixel)[:, None] * channels + e[None, :], narrow(out, out_ptr), mask=live)
