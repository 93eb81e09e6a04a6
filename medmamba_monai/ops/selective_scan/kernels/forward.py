"""The recurrence, forward: states in registers, one step after the other. Imports triton only.

A program owns BLOCK_E channels of one direction of one image, a lane one channel with all its states: sums
over states need no exchange between lanes. It loads delta and u one group of UNROLL steps ahead, so that
memory's latency hides behind the exponentials, which bound the kernel.

u, B and C are read and y is written at the pixel each step visits; delta (batch, K, L, E) is in visiting
order; A is (K, N, E) times log2(e). B and C are best given in float32: each lane would convert them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .steps import channel_offsets, load_vectors, narrow, start_of, state_offsets
from .walk import cursor_at, direction_of, times_at, visit

__all__ = ["scan_forward"]


@triton.jit
def scan_forward(
    u_ptr: tl.tensor,
    delta_ptr: tl.tensor,
    a_ptr: tl.tensor,
    b_ptr: tl.tensor,
    c_ptr: tl.tensor,
    d_ptr: tl.tensor,
    order_ptr: tl.tensor,
    start_ptr: tl.tensor,
    y_ptr: tl.tensor,
    saved_ptr: tl.tensor,
    last_ptr: tl.tensor,
    u_strides: tl.tensor,
    b_strides: tl.tensor,
    c_strides: tl.tensor,
    y_strides: tl.tensor,
    walks: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    directions: tl.tensor,
    span: tl.tensor,
    blocks: tl.tensor,
    STATES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
    VECTOR: tl.constexpr,
    UNROLL: tl.constexpr,
    INTERVAL: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    ORDER: tl.constexpr,
    EVEN: tl.constexpr,
    SKIP: tl.constexpr,
    STARTS: tl.constexpr,
    SAVE: tl.constexpr,
    LAST: tl.constexpr,
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Scan steps [span * i, span * (i + 1)) of a direction. Grid: (batch * K * blocks of channels, spans).

    STARTS: start (batch, K, spans, state) holds the state before each span, else it is zero. SAVE: the state
    before every INTERVAL-th step goes to saved (batch, K, ceil(L / INTERVAL), state). LAST: the last goes to
    last (batch, K, state). RAGGED: L is no multiple of UNROLL. WIDE: offsets within an image need 64 bits.
    """
    slice_id = (tl.program_id(0) // blocks).to(tl.int64)
    batch, k = slice_id // directions, slice_id % directions
    block = tl.program_id(0) % blocks
    e = block * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    live_e = e < channels
    live_n = n < STATES
    first = tl.program_id(1) * span
    end = tl.minimum(first + span, length)
    final = length - 1
    u_ptr = start_of(u_ptr, u_strides, batch, k)
    b_ptr = start_of(b_ptr, b_strides, batch, k)
    c_ptr = start_of(c_ptr, c_strides, batch, k)
    y_ptr = start_of(y_ptr, y_strides, batch, k)
    delta_ptr += slice_id * length * channels
    order_ptr = order_ptr + k * length if ORDER == 1 else order_ptr
    way = direction_of(walks, k, DIRECTIONS) if ORDER >= 2 else None
    state_numel = slice_id * 0 + blocks * (BLOCK_N * BLOCK_E)
    saved_ptr = saved_ptr + slice_id * tl.cdiv(length, INTERVAL) * state_numel if SAVE else saved_ptr
    place = state_offsets(block, BLOCK_N, BLOCK_E, VECTOR)

    tile = k * STATES * channels + channel_offsets(e, n, channels, VECTOR)
    A = tl.load(a_ptr + tile, mask=live_n[:, None] & live_e[None, :], other=0.0)
    if SKIP:
        D = tl.load(d_ptr + k * channels + e, mask=live_e, other=0.0).to(tl.float32)
    state = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    if STARTS:
        span_id = slice_id * tl.num_programs(1) + tl.program_id(1)
        state += tl.load(start_ptr + span_id * state_numel + place)
    cursor = cursor_at(way, first, ORDER)
    next_pixels, cursor = visit(way, order_ptr, cursor, first, final, UNROLL, ORDER, EVEN, WIDE)
    next_steps = times_at(first, final, UNROLL, WIDE)
    next_delta = load_vectors(delta_ptr, next_steps, channels, e, live_e, UNROLL)
    next_u = load_vectors(u_ptr, next_pixels, u_strides[1], e, live_e, UNROLL)
    for group in range(first, end, UNROLL):
        if SAVE:  # noqa: SIM102  (decided at compile time)
            # before the loads: a branch after them would keep all of a group's in registers
            if group % INTERVAL == 0:
                tl.store(saved_ptr + (group // INTERVAL) * state_numel + place, state)
        pixels, deltas, inputs = next_pixels, next_delta, next_u
        next_pixels, cursor = visit(way, order_ptr, cursor, group + UNROLL, final, UNROLL, ORDER, EVEN, WIDE)
        next_steps = times_at(group + UNROLL, final, UNROLL, WIDE)
        next_delta = load_vectors(delta_ptr, next_steps, channels, e, live_e, UNROLL)
        next_u = load_vectors(u_ptr, next_pixels, u_strides[1], e, live_e, UNROLL)
        into = load_vectors(b_ptr, pixels, b_strides[1], n, live_n, UNROLL)
        out_of = load_vectors(c_ptr, pixels, c_strides[1], n, live_n, UNROLL)
        for j in tl.static_range(UNROLL):
            delta = deltas[j].to(tl.float32)
            u = inputs[j].to(tl.float32)
            live_y = live_e
            if RAGGED:
                inside = group + j < end
                delta = tl.where(inside, delta, 0.0)  # a step of length zero leaves the state as it is
                live_y = e < tl.where(inside, channels, 0)
            state = tl.exp2(delta[None, :] * A) * state + (delta * u)[None, :] * into[j].to(tl.float32)[:, None]
            y = tl.sum(state * out_of[j].to(tl.float32)[:, None], 0)
            if SKIP:
                y += D * u
            tl.store(y_ptr + pixels[j] * y_strides[1] + e, narrow(y, y_ptr), mask=live_y)
    if LAST:  # noqa: SIM102  (decided at compile time)
        if end == length:
            tl.store(last_ptr + slice_id * state_numel + place, state)
