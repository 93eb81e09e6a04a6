"""Runs the kernels: makes their buffers, chooses grids and constants. Imports triton, torch and the kernels."""

from __future__ import annotations

import contextlib
import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .backward import scan_backward
from .delta import expand_steps
from .forward import scan_forward
from .merge import merge_directions
from .plan import BACKWARD_UNROLL, FORWARD_UNROLL, INTERVAL, Plan, Walks, make_plan, power_of_two
from .spans import span_ends, span_starts

__all__ = ["MAP_OPTIONS", "Gradients", "Problem", "backward", "expand", "forward", "merge", "on"]

_FORWARD_VECTOR = 1  # channels of a lane: sums over states are frequent, so all states of a channel are in one lane
_BACKWARD_VECTOR = 4  # sums over channels are as frequent: 4 channels and a quarter of the states in a lane
_WIDE = 2**31  # offsets from here on need 64 bits
_SCAN_OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}
MAP_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # of kernels that go over a map once


class Problem(NamedTuple):
    """What the scan kernels are given: maps with any strides, parameters of their own for each direction."""

    u: Tensor  # (batch, L, K, E); K may be an expanded axis
    delta: Tensor  # (batch, K, L, E) contiguous, in visiting order
    A: Tensor  # (K, N, E) float32 contiguous, times log2(e)
    B: Tensor  # (batch, L, K, N)
    C: Tensor  # (batch, L, K, N)
    D: Tensor | None  # (K, E) contiguous
    order: Tensor | None  # (K, L) contiguous; None where ``walks`` says it, or every pixel is its own step
    walks: Walks | None
    initial: Tensor | None  # (batch, K, state), see plan.to_blocks
    softplus: bool  # whether delta came out of a softplus

    @property
    def plan(self) -> Plan:
        """The programs that solve it."""
        batch, directions, length, channels = self.delta.shape
        return make_plan(batch * directions, length, channels, self.A.shape[1])


class Gradients(NamedTuple):
    """What backward returns, in the axes of :class:`Problem`; the gradient of delta is by pixel."""

    u: Tensor  # (batch, K, L, E), a part for each direction
    delta: Tensor  # (batch, K, L, E), before softplus
    A: Tensor  # (K, N, E), of A itself
    B: Tensor  # (batch, L, K, N)
    C: Tensor  # (batch, L, K, N)
    D: Tensor | None  # (K, E)
    bias: Tensor  # (K, E)
    initial: Tensor | None  # (batch, K, state)


def on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensors'."""
    if device.type == "cuda":
        return torch.cuda.device(device)
    return torch.xpu.device(device) if device.type == "xpu" else contextlib.nullcontext()


def _row_strides(tensor: Tensor) -> tuple[int, int, int]:
    return tensor.stride(0), tensor.stride(1), tensor.stride(2)


def _wide(problem: Problem, *others: Tensor) -> bool:
    """Whether an offset within an image can reach 2^31."""
    _, directions, length, channels = problem.delta.shape
    rows = [channels, directions * problem.A.shape[1]]
    rows += [abs(t.stride(1)) for t in (problem.u, problem.B, problem.C, *others)]
    return length * max(rows) >= _WIDE


def _empty(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)


def _stepping(problem: Problem, unroll: int) -> dict[str, Any]:
    """Arguments of the kernels that go from step to step, ``unroll`` at a time."""
    order, walks = problem.order, problem.walks
    return {
        "walks": None if walks is None else walks.numbers,
        "UNROLL": unroll,
        "DIRECTIONS": 0 if walks is None else problem.delta.shape[1],
        "ORDER": walks.axes if walks is not None else 0 if order is None else 1,
        "EVEN": walks is not None and walks.even(unroll),
    }


def _common(problem: Problem, plan: Plan, vector: int) -> dict[str, Any]:
    """Arguments all scan kernels share."""
    _, directions, _, channels = problem.delta.shape
    return {
        "channels": channels,
        "directions": directions,
        "blocks": plan.blocks,
        "STATES": problem.A.shape[1],
        "BLOCK_N": plan.block_n,
        "BLOCK_E": plan.block_e,
        "VECTOR": math.gcd(vector, plan.block_e, channels),  # what rows of other lengths start at is no multiple of it
        **_SCAN_OPTIONS,
    }


def _dot_precision(device: torch.device) -> str:
    """Three products of TF32 parts are as precise as float32 and run on tensor cores, on NVIDIA's from Ampere on."""
    if device.type != "cuda" or torch.version.hip is not None:
        return "ieee"
    return "tf32x3" if torch.cuda.get_device_capability(device) >= (8, 0) else "ieee"


def expand(dt: Tensor, weight: Tensor, bias: Tensor, order: Tensor, dtype: torch.dtype) -> Tensor:
    """Step sizes softplus(W dt + b) (batch, K, L, E) in visiting order, from dt (batch, L, K, R)."""
    batch, length, directions, rank = dt.shape
    channels = weight.shape[1]
    delta = dt.new_empty(batch, directions, length, channels, dtype=dtype)
    block_t, block_e = 128 if length >= 128 else 64, 64 if channels % 64 == 0 else 32
    blocks = triton.cdiv(length, block_t)
    with on(dt.device):
        expand_steps[(batch * directions * blocks, triton.cdiv(channels, block_e))](
            dt, weight, bias, order, delta, _row_strides(dt), length, channels, directions, blocks,
            RANK=rank, BLOCK_R=max(16, power_of_two(rank)), BLOCK_T=block_t, BLOCK_E=block_e,
            PRECISION=_dot_precision(dt.device), **MAP_OPTIONS,
        )  # fmt: skip
    return delta


def merge(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum (batch, K, L, E) over K, in float32, to (batch, L, E)."""
    batch, directions, length, channels = parts.shape
    total = parts.new_empty(batch, length, channels, dtype=dtype)
    numel, block = length * channels, 1024
    blocks = triton.cdiv(numel, block)
    with on(parts.device):
        merge_directions[(batch * blocks,)](
            parts, total, numel, blocks, DIRECTIONS=directions, BLOCK=block, **MAP_OPTIONS
        )
    return total


def _spans(problem: Problem, plan: Plan, x: Tensor, matrix: Tensor, boundary: Tensor | None, reverse: bool) -> Tensor:
    """The state before each span (batch, K, spans, state); ``reverse``: the gradient that comes in behind it."""
    batch, directions, length, channels = problem.delta.shape
    ends = _empty(x, batch, directions, plan.spans, plan.state_numel)
    starts = torch.empty_like(ends)
    elapsed = _empty(x, batch, directions, plan.spans, channels)
    slices = batch * directions * plan.blocks
    wide = _wide(problem, x)
    common = _common(problem, plan, _FORWARD_VECTOR)
    span_ends[(slices, plan.spans)](
        x, problem.delta, problem.A, matrix, problem.order, ends, elapsed, _row_strides(x), _row_strides(matrix),
        length=length, span=plan.span, REVERSE=reverse, WIDE=wide, **_stepping(problem, FORWARD_UNROLL), **common,
    )  # fmt: skip
    span_starts[(slices,)](
        ends, elapsed, problem.A, boundary, starts, spans=plan.spans, INITIAL=boundary is not None, REVERSE=reverse,
        **common,
    )  # fmt: skip
    return starts


def forward(problem: Problem, y: Tensor, save: bool, last: bool) -> tuple[Tensor, Tensor | None]:
    """Scan, writing y (batch, L, K, E, any strides but the last); return the saved states and the last one."""
    plan = problem.plan
    batch, directions, length, _ = problem.delta.shape
    saved = _empty(y, batch * directions * plan.checkpoints * plan.state_numel if save else 0)
    final = _empty(y, batch, directions, plan.state_numel) if last else None
    wide = _wide(problem, y)
    with on(y.device):
        starts = problem.initial
        if plan.spans > 1:
            starts = _spans(problem, plan, problem.u, problem.B, problem.initial, reverse=False)
        scan_forward[(batch * directions * plan.blocks, plan.spans)](
            problem.u, problem.delta, problem.A, problem.B, problem.C, problem.D, problem.order, starts, y,
            saved if save else None, final,
            _row_strides(problem.u), _row_strides(problem.B), _row_strides(problem.C), _row_strides(y),
            length=length, span=plan.span, INTERVAL=INTERVAL, SKIP=problem.D is not None, STARTS=starts is not None,
            SAVE=save, LAST=last, RAGGED=length % FORWARD_UNROLL != 0, WIDE=wide,
            **_stepping(problem, FORWARD_UNROLL), **_common(problem, plan, _FORWARD_VECTOR),
        )  # fmt: skip
    return saved, final


def backward(problem: Problem, grad: Tensor, grad_last: Tensor | None, saved: Tensor, dtype: torch.dtype) -> Gradients:
    """Gradients for ``grad`` (batch, L, K, E) of y and ``grad_last`` (batch, K, state) of the last state.

    Those of u and delta come in ``dtype``, the others in float32.
    """
    plan = problem.plan
    batch, directions, length, channels = problem.delta.shape
    states = problem.A.shape[1]
    d_u = grad.new_empty(batch, directions, length, channels, dtype=dtype)
    d_delta = torch.empty_like(d_u)
    d_A = _empty(grad, batch, plan.spans, directions, states, channels)
    d_B = _empty(grad, plan.blocks, batch, length, directions, states)
    d_C = torch.empty_like(d_B)
    d_D = None if problem.D is None else _empty(grad, batch, plan.spans, directions, channels)
    d_bias = _empty(grad, batch, plan.spans, directions, channels)
    d_starts = None
    if problem.initial is not None:
        d_starts = _empty(grad, batch, directions, plan.spans, plan.state_numel)
    slices = batch * directions * plan.blocks
    tile = plan.block_n * plan.block_e
    scratch = _empty(grad, slices * plan.spans * (INTERVAL // BACKWARD_UNROLL) * tile)
    wide = _wide(problem, grad)
    with on(grad.device):
        ends = grad_last
        if plan.spans > 1:
            ends = _spans(problem, plan, grad, problem.C, grad_last, reverse=True)
        scan_backward[(slices, plan.spans)](
            grad, problem.u, problem.delta, problem.A, problem.B, problem.C, problem.D, problem.order, saved, ends,
            scratch, d_u, d_delta, d_A, d_B, d_C, d_D, d_bias, d_starts,
            _row_strides(grad), _row_strides(problem.u), _row_strides(problem.B), _row_strides(problem.C),
            length=length, span=plan.span, INTERVAL=INTERVAL, SKIP=problem.D is not None, SOFTPLUS=problem.softplus,
            ENDS=ends is not None, STARTS=d_starts is not None, WIDE=wide,
            **_stepping(problem, BACKWARD_UNROLL), **_common(problem, plan, _BACKWARD_VECTOR),
        )  # fmt: skip
    return Gradients(
        d_u,
        d_delta,
        d_A.sum((0, 1)),
        d_B.sum(0),
        d_C.sum(0),
        None if d_D is None else d_D.sum((0, 1)),
        d_bias.sum((0, 1)),
        None if d_starts is None else d_starts[:, :, 0],
    )
