"""Step sizes: expand the low-rank dt to channels, add the bias, pass through softplus. Imports triton only."""

from __future__ import annotations

import triton
import triton.language as tl

from .steps import narrow, start_of

__all__ = ["expand_steps"]


@triton.jit
def _softplus(x: tl.tensor) -> tl.tensor:
    """log(1 + exp(x)) to float32's precision for small and large x, without a logarithm.

    With z = exp(-|x|) it is max(x, 0) + log1p(z), and log1p(z) / z a polynomial on [0, 1]: a Chebyshev fit of
    degree 9, wrong by 5e-9 before rounding.
    """
    z = tl.exp2(tl.abs(x) * -1.4426950408889634)
    p = tl.full(z.shape, -0.00325637848, tl.float32)
    p = p * z + 0.0199071609
    p = p * z - 0.0570642008
    p = p * z + 0.106142647
    p = p * z - 0.153118631
    p = p * z + 0.196781173
    p = p * z - 0.249545589
    p = p * z + 0.33330004
    p = p * z - 0.49999904
    p = p * z + 0.999999995
    return tl.maximum(x, 0.0) + p * z


@triton.jit
def expand_steps(
    dt_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    order_ptr: tl.tensor,
    delta_ptr: tl.tensor,
    dt_strides: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    directions: tl.tensor,
    blocks: tl.tensor,
    RANK: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Write delta (batch, K, L, E) in visiting order from dt (batch, L, K, R) in storage order.

    Grid: (batch * K * blocks of steps, blocks of channels).
    """
    slice_id = (tl.program_id(0) // blocks).to(tl.int64)
    batch = slice_id // directions
    k = slice_id % directions
    t = (tl.program_id(0) % blocks) * BLOCK_T + tl.arange(0, BLOCK_T)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    r = tl.arange(0, BLOCK_R)
    live_t = t < length
    live_e = e < channels
    live_r = r < RANK
    pixel = tl.load(order_ptr + k * length + t, mask=live_t, other=0)
    rows = start_of(dt_ptr, dt_strides, batch, k) + pixel * dt_strides[1]
    dt = tl.load(rows[:, None] + r[None, :], mask=live_t[:, None] & live_r[None, :], other=0.0).to(tl.float32)
    columns = weight_ptr + (k * channels + e) * RANK
    weight = tl.load(columns[None, :] + r[:, None], mask=live_r[:, None] & live_e[None, :], other=0.0)
    bias = tl.load(bias_ptr + k * channels + e, mask=live_e, other=0.0).to(tl.float32)
    raw = tl.dot(dt, weight.to(tl.float32), input_precision=PRECISION) + bias[None, :]
    out = delta_ptr + (slice_id * length + t)[:, None] * channels + e[None, :]
    tl.store(out, narrow(_softplus(raw), delta_ptr), mask=live_t[:, None] & live_e[None, :])
