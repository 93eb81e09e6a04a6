"""The recurrence, backward: states are computed again from those forward saved. Imports triton only.

A program walks over its steps from the last to the first, INTERVAL steps at a time: it runs them forward
once from the saved state and parks every UNROLL-th state in a scratch buffer of its own, then goes back group
by group, computing the group's states again in registers. Tensors lie as in forward.py. Gradients to which
several programs contribute (of B and C over the channels, of A, D and the bias over images and spans) go to
buffers with a part for each program, summed afterwards: the result does not depend on the programs' order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .steps import channel_offsets, load_vectors, narrow, start_of, state_offsets
from .walk import cursor_at, direction_of, times_at, visit, visit_back

__all__ = ["scan_backward"]


@triton.jit
def _one_minus_exp(delta: tl.tensor) -> tl.tensor:
    """1 - exp(-delta), the derivative of softplus where softplus is delta >= 0, without cancellation near 0."""
    series = 1.0 - delta * (1 / 5) * (1.0 - delta * (1 / 6))
    series = 1.0 - delta * (1 / 4) * series
    series = 1.0 - delta * (1 / 3) * series
    series = delta * (1.0 - delta * (1 / 2) * series)
    return tl.where(delta < 0.25, series, 1.0 - tl.exp2(delta * -1.4426950408889634))


@triton.jit
def _advance(
    state: tl.tensor, A: tl.tensor, deltas: tl.tensor, inputs: tl.tensor, into: tl.tensor, COUNT: tl.constexpr
) -> tl.tensor:
    """Run COUNT steps forward. Steps beyond the end need no care: nothing that follows reads their states."""
    for j in tl.static_range(COUNT):
        delta = deltas[j].to(tl.float32)
        entry = delta * inputs[j].to(tl.float32)
        state = tl.exp2(delta[None, :] * A) * state + entry[None, :] * into[j].to(tl.float32)[:, None]
    return state


@triton.jit
def _recompute(
    state: tl.tensor,
    A: tl.tensor,
    deltas: tl.tensor,
    inputs: tl.tensor,
    into: tl.tensor,
    t: tl.tensor,
    end: tl.tensor,
    COUNT: tl.constexpr,
) -> tl.tensor:
    """COUNT steps from ``state``: their decays, and the part of each state that came from the one before."""
    decays: tl.tensor = ()
    kept: tl.tensor = ()
    for j in tl.static_range(COUNT):
        delta = tl.where(t + j < end, deltas[j].to(tl.float32), 0.0)  # a step of length zero changes nothing
        decay = tl.exp2(delta[None, :] * A)
        decays = decays + (decay,)
        kept = kept + (decay * state,)
        if j + 1 < COUNT:
            entry = delta * inputs[j].to(tl.float32)
            state = kept[j] + entry[None, :] * into[j].to(tl.float32)[:, None]
    return decays, kept


@triton.jit
def _step_back(
    carry: tl.tensor,
    decay: tl.tensor,
    kept: tl.tensor,
    delta: tl.tensor,
    u: tl.tensor,
    grad: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    A: tl.tensor,
) -> tl.tensor:
    """One step back; ``carry`` is the gradient of its state that comes from the steps after it.

    Returns the carry for the step before, and the gradients of the exponents delta * A, of B, of C, of delta * u and,
    through the exponents alone, of delta.
    """
    entry = delta * u
    state = kept + entry[None, :] * B[:, None]
    carry += C[:, None] * grad[None, :]
    dC = tl.sum(state * grad[None, :], 1)
    dB = tl.sum(carry * entry[None, :], 1)
    dentry = tl.sum(carry * B[:, None], 0)
    dexponent = carry * kept
    ddelta = tl.sum(dexponent * A, 0) * 0.6931471805599453  # A is times log2(e)
    return carry * decay, dexponent, dB, dC, dentry, ddelta


@triton.jit
def scan_backward(
    grad_ptr: tl.tensor,
    u_ptr: tl.tensor,
    delta_ptr: tl.tensor,
    a_ptr: tl.tensor,
    b_ptr: tl.tensor,
    c_ptr: tl.tensor,
    d_ptr: tl.tensor,
    order_ptr: tl.tensor,
    saved_ptr: tl.tensor,
    grad_end_ptr: tl.tensor,
    scratch_ptr: tl.tensor,
    du_ptr: tl.tensor,
    ddelta_ptr: tl.tensor,
    da_ptr: tl.tensor,
    db_ptr: tl.tensor,
    dc_ptr: tl.tensor,
    dd_ptr: tl.tensor,
    dbias_ptr: tl.tensor,
    dstart_ptr: tl.tensor,
    grad_strides: tl.tensor,
    u_strides: tl.tensor,
    b_strides: tl.tensor,
    c_strides: tl.tensor,
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
    SOFTPLUS: tl.constexpr,
    ENDS: tl.constexpr,
    STARTS: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Gradients over steps [span * i, span * (i + 1)) of a direction. Grid: (batch * K * blocks of channels, spans).

    du and ddelta (batch, K, L, E) are written by pixel; ddelta is the gradient before softplus. db and dc are
    (blocks, batch, L, K, N); da (batch, spans, K, N, E) is the gradient of A; dd and dbias are (batch, spans, K, E).
    ENDS: grad_end (batch, K, spans, state) holds the gradient of the state after each span, else it is zero.
    STARTS: the gradient of the state before the span goes to dstart (batch, K, spans, state).
    """
    slice_id = (tl.program_id(0) // blocks).to(tl.int64)
    batch, k = slice_id // directions, slice_id % directions
    block = tl.program_id(0) % blocks
    e = block * BLOCK_E + tl.arange(0, BLOCK_E)
    n = tl.arange(0, BLOCK_N)
    live_e = e < channels
    live_n = n < STATES
    live = live_n[:, None] & live_e[None, :]
    first = tl.program_id(1) * span
    end = tl.minimum(first + span, length)
    final = length - 1
    tile = channel_offsets(e, n, channels, VECTOR)
    place = state_offsets(block, BLOCK_N, BLOCK_E, VECTOR)
    local = state_offsets(0, BLOCK_N, BLOCK_E, VECTOR)

    grad_ptr = start_of(grad_ptr, grad_strides, batch, k)
    u_ptr = start_of(u_ptr, u_strides, batch, k)
    b_ptr = start_of(b_ptr, b_strides, batch, k)
    c_ptr = start_of(c_ptr, c_strides, batch, k)
    delta_ptr += slice_id * length * channels
    du_ptr += slice_id * length * channels
    ddelta_ptr += slice_id * length * channels
    images = tl.num_programs(0) // blocks // directions
    matrices = ((block * images + batch) * length * directions + k) * STATES
    db_ptr += matrices
    dc_ptr += matrices
    matrix_row = directions * STATES
    order_ptr = order_ptr + k * length if ORDER == 1 else order_ptr
    way = direction_of(walks, k, DIRECTIONS) if ORDER >= 2 else None
    state_numel = slice_id * 0 + blocks * (BLOCK_N * BLOCK_E)
    saved_ptr += slice_id * tl.cdiv(length, INTERVAL) * state_numel
    span_id = slice_id * tl.num_programs(1) + tl.program_id(1)
    scratch_ptr += (span_id * blocks + block) * (INTERVAL // UNROLL) * (BLOCK_N * BLOCK_E)

    A = tl.load(a_ptr + k * STATES * channels + tile, mask=live, other=0.0)
    if SKIP:
        D = tl.load(d_ptr + k * channels + e, mask=live_e, other=0.0).to(tl.float32)
    carry = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    if ENDS:
        carry += tl.load(grad_end_ptr + span_id * state_numel + place)
    dA = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
    dD = tl.zeros([BLOCK_E], tl.float32)
    dbias = tl.zeros([BLOCK_E], tl.float32)

    chunks = tl.cdiv(end - first, INTERVAL)
    for back in range(0, chunks):
        begin = first + (chunks - 1 - back) * INTERVAL
        groups = tl.cdiv(tl.minimum(begin + INTERVAL, end) - begin, UNROLL)
        state = tl.load(saved_ptr + (begin // INTERVAL) * state_numel + place)
        cursor = cursor_at(way, begin, ORDER)
        for group in range(0, groups):
            tl.store(scratch_ptr + group * (BLOCK_N * BLOCK_E) + local, state)
            t = begin + group * UNROLL
            pixels, cursor = visit(way, order_ptr, cursor, t, final, UNROLL, ORDER, EVEN, WIDE)
            times = times_at(t, final, UNROLL, WIDE)
            deltas = load_vectors(delta_ptr, times, channels, e, live_e, UNROLL)
            inputs = load_vectors(u_ptr, pixels, u_strides[1], e, live_e, UNROLL)
            into = load_vectors(b_ptr, pixels, b_strides[1], n, live_n, UNROLL)
            state = _advance(state, A, deltas, inputs, into, UNROLL)
        tl.debug_barrier()  # for all this file knows, scratch is read by other lanes than wrote it
        for group_back in range(0, groups):
            group = groups - 1 - group_back
            state = tl.load(scratch_ptr + group * (BLOCK_N * BLOCK_E) + local)
            t = begin + group * UNROLL
            pixels, cursor = visit_back(way, order_ptr, cursor, t, final, UNROLL, ORDER, EVEN, WIDE)
            times = times_at(t, final, UNROLL, WIDE)
            deltas = load_vectors(delta_ptr, times, channels, e, live_e, UNROLL)
            inputs = load_vectors(u_ptr, pixels, u_strides[1], e, live_e, UNROLL)
            grads = load_vectors(grad_ptr, pixels, grad_strides[1], e, live_e, UNROLL)
            into = load_vectors(b_ptr, pixels, b_strides[1], n, live_n, UNROLL)
            out_of = load_vectors(c_ptr, pixels, c_strides[1], n, live_n, UNROLL)
            decays, kept = _recompute(state, A, deltas, inputs, into, t, end, UNROLL)
            for j in tl.static_range(UNROLL - 1, -1, -1):
                inside = t + j < end
                delta = tl.where(inside, deltas[j].to(tl.float32), 0.0)
                grad = tl.where(inside, grads[j].to(tl.float32), 0.0)
                u = inputs[j].to(tl.float32)
                B = into[j].to(tl.float32)
                C = out_of[j].to(tl.float32)
                carry, dexponent, dB, dC, dentry, ddelta = _step_back(
                    carry, decays[j], kept[j], delta, u, grad, B, C, A
                )
                ddelta += dentry * u
                dA += dexponent * delta[None, :]
                du = dentry * delta
                if SKIP:
                    du += D * grad
                    dD += grad * u
                if SOFTPLUS:
                    ddelta *= _one_minus_exp(delta)
                dbias += tl.where(inside, ddelta, 0.0)
                row = pixels[j] * channels + e
                store_e = e < tl.where(inside, channels, 0)
                store_n = n < tl.where(inside, STATES, 0)
                tl.store(du_ptr + row, narrow(du, du_ptr), mask=store_e)
                tl.store(ddelta_ptr + row, narrow(ddelta, ddelta_ptr), mask=store_e)
                tl.store(db_ptr + pixels[j] * matrix_row + n, dB, mask=store_n)
                tl.store(dc_ptr + pixels[j] * matrix_row + n, dC, mask=store_n)
        tl.debug_barrier()
    part = (batch * tl.num_programs(1) + tl.program_id(1)) * directions + k
    tl.store(da_ptr + part * STATES * channels + tile, dA, mask=live)
    tl.store(dbias_ptr + part * channels + e, dbias, mask=live_e)
    if SKIP:
        tl.store(dd_ptr + part * channels + e, dD, mask=live_e)
    if STARTS:
        tl.store(dstart_ptr + span_id * state_numel + place, carry)
