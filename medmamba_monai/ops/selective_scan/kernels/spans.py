"""Few sequences leave a GPU empty: cut each into spans that run side by side. Imports triton only.

The state after a span is the one it would reach from zero plus the state before it times the span's decay
exp(A * sum of delta). So: ``span_ends`` finds all spans' ends from zero at once, ``span_starts`` walks along the
spans, and the scan proper begins each span from its true state. This costs each exponential twice. Backward does
the same from the other end.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .steps import channel_offsets, load_vectors, start_of, state_offsets
from .walk import cursor_at, direction_of, times_at, visit, visit_back

__all__ = ["span_ends", "span_starts"]


@triton.jit
def span_ends(
    x_ptr: tl.tensor,
    delta_ptr: tl.tensor,
    a_ptr: tl.tensor,
    matrix_ptr: tl.tensor,
    order_ptr: tl.tensor,
    end_ptr: tl.tensor,
    elapsed_ptr: tl.tensor,
    x_strides: tl.tensor,
    matrix_strides: tl.tensor,
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
    DIRECTIONS: tl.constexpr,
    ORDER: tl.constexpr,
    EVEN: tl.constexpr,
    REVERSE: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """The state each span ends in from zero, and its sum of delta. Grid: (batch * K * blocks of channels, spans).

    Forward, x is u and matrix is B: end = a end + delta u B, step by step. REVERSE, x is the gradient of y and
    matrix is C, and the gradient of the state before the span comes out: end = a (end + x C), from the last step
    to the first. ``end`` is (batch, K, spans, state), ``elapsed`` (batch, K, spans, E).
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
    x_ptr = start_of(x_ptr, x_strides, batch, k)
    matrix_ptr = start_of(matrix_ptr, matrix_strides, batch, k)
    delta_ptr += slice_id * length * channels
    order_ptr = order_ptr + k * length if ORDER == 1 else order_ptr
    way = direction_of(walks, k, DIRECTIONS) if ORDER >= 2 else None
    tile = k * STATES * channels + channel_offsets(e, n, channels, VECTOR)
    A = tl.load(a_ptr + tile, mask=live_n[:, None] & live_e[None, :], other=0.0)
    state = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    elapsed = tl.zeros([BLOCK_E], tl.float32)
    groups = tl.cdiv(end - first, UNROLL)
    cursor = cursor_at(way, first + groups * UNROLL if REVERSE else first, ORDER)
    for index in range(0, groups):
        t = first + (groups - 1 - index if REVERSE else index) * UNROLL
        if REVERSE:
            pixels, cursor = visit_back(way, order_ptr, cursor, t, length - 1, UNROLL, ORDER, EVEN, WIDE)
        else:
            pixels, cursor = visit(way, order_ptr, cursor, t, length - 1, UNROLL, ORDER, EVEN, WIDE)
        times = times_at(t, length - 1, UNROLL, WIDE)
        deltas = load_vectors(delta_ptr, times, channels, e, live_e, UNROLL)
        inputs = load_vectors(x_ptr, pixels, x_strides[1], e, live_e, UNROLL)
        matrix = load_vectors(matrix_ptr, pixels, matrix_strides[1], n, live_n, UNROLL)
        for j in tl.static_range(UNROLL - 1 if REVERSE else 0, -1 if REVERSE else UNROLL, -1 if REVERSE else 1):
            inside = t + j < end
            delta = tl.where(inside, deltas[j].to(tl.float32), 0.0)
            x = tl.where(inside, inputs[j].to(tl.float32), 0.0)
            elapsed += delta
            decay = tl.exp2(delta[None, :] * A)
            if REVERSE:
                state = decay * (state + x[None, :] * matrix[j].to(tl.float32)[:, None])
            else:
                state = decay * state + (delta * x)[None, :] * matrix[j].to(tl.float32)[:, None]
    span_id = slice_id * tl.num_programs(1) + tl.program_id(1)
    place = state_offsets(block, BLOCK_N, BLOCK_E, VECTOR)
    tl.store(end_ptr + span_id * blocks * (BLOCK_N * BLOCK_E) + place, state)
    tl.store(elapsed_ptr + span_id * channels + e, elapsed, mask=live_e)


@triton.jit
def span_starts(
    end_ptr: tl.tensor,
    elapsed_ptr: tl.tensor,
    a_ptr: tl.tensor,
    initial_ptr: tl.tensor,
    start_ptr: tl.tensor,
    channels: tl.tensor,
    directions: tl.tensor,
    spans: tl.tensor,
    blocks: tl.tensor,
    STATES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
    VECTOR: tl.constexpr,
    INITIAL: tl.constexpr,
    REVERSE: tl.constexpr,
) -> None:
    """The true state before each span, from the ends of ``span_ends``. Grid: (batch * K * blocks of channels).

    INITIAL: initial (batch, K, state) holds the state before the first span, else it is zero. REVERSE: from the
    last span to the first, so that start holds what comes in from behind each span.
    """
    slice_id = (tl.program_id(0) // blocks).to(tl.int64)
    k = slice_id % directions
    block = tl.program_id(0) % blocks
    e = block * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    live_e = e < channels
    tile = k * STATES * channels + channel_offsets(e, n, channels, VECTOR)
    A = tl.load(a_ptr + tile, mask=(n < STATES)[:, None] & live_e[None, :], other=0.0)
    place = state_offsets(block, BLOCK_N, BLOCK_E, VECTOR)
    state_numel = blocks * (BLOCK_N * BLOCK_E)
    if INITIAL:
        state = tl.load(initial_ptr + slice_id * state_numel + place)
    else:
        state = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    for index in range(0, spans):
        span_id = slice_id * spans + (spans - 1 - index if REVERSE else index)
        tl.store(start_ptr + span_id * state_numel + place, state)
        elapsed = tl.load(elapsed_ptr + span_id * channels + e, mask=live_e, other=0.0)
        end = tl.load(end_ptr + span_id * state_numel + place)
        state = tl.exp2(elapsed[None, :] * A) * state + end
