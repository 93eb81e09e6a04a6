"""Both scans in plain PyTorch, forward and backward, on any device. Imports contract.py only.

The recurrence runs over chunks of steps: exponentials and products of a chunk are computed at once, then one fused
multiply-add a step carries the state. Only products of decays <= 1 occur, no divisions, so nothing can overflow.
Backward keeps the state at each chunk's start and recomputes the rest.

Inside, tensors are step-major: (L, batch, K, ...), where K counts directions or groups.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import DirectionalInputs, SequenceInputs

__all__ = [
    "directional_backward",
    "directional_forward",
    "directional_saved_numel",
    "sequence_backward",
    "sequence_forward",
    "sequence_saved_numel",
    "unavailable",
]

# A chunk's largest tensor holds about this many numbers: three of them stay in a core's second-level cache.
_CHUNK_NUMEL = 1 << 18
_MIN_STEPS, _MAX_STEPS = 4, 128


class _Steps(NamedTuple):
    """One recurrence, step-major: delta and u (L, batch, K, E), A (K, E, N), B and C (L, batch, K, N)."""

    delta: Tensor
    u: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    A_log2e: Tensor  # torch's exp2 is six times as fast as its exp on CPUs, measured


def _steps(delta: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> _Steps:
    return _Steps(delta, u, A, B, C, A * math.log2(math.e))


def unavailable(device: torch.device) -> str | None:
    """Return None: plain PyTorch runs on every device."""
    return None


def _chunk_steps(state_numel: int) -> int:
    return max(_MIN_STEPS, min(_MAX_STEPS, _CHUNK_NUMEL // max(state_numel, 1)))


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


class _Workspace:
    """Buffers of one chunk, made once: fresh memory for every chunk would cost more than the arithmetic."""

    def __init__(self, steps: _Steps, buffers: int) -> None:
        state_shape = (*steps.u.shape[1:], steps.A.shape[-1])
        self.span = min(_chunk_steps(math.prod(state_shape)), steps.u.shape[0])
        self._buffers = [steps.u.new_empty(self.span, *state_shape) for _ in range(buffers)]

    def __getitem__(self, chunk: slice) -> list[Tensor]:
        return [buffer[: chunk.stop - chunk.start] for buffer in self._buffers]

    def chunks(self, length: int) -> list[slice]:
        return [slice(begin, min(begin + self.span, length)) for begin in range(0, length, self.span)]


def _fill_states(steps: _Steps, chunk: slice, state: Tensor, decay: Tensor, states: Tensor) -> None:
    """Write the decays and the states (T, batch, K, E, N) of a chunk that starts from ``state``."""
    delta = steps.delta[chunk]
    torch.mul(delta.unsqueeze(-1), steps.A_log2e, out=decay).exp2_()
    torch.mul((delta * steps.u[chunk]).unsqueeze(-1), steps.B[chunk].unsqueeze(-2), out=states)
    for a, h in zip(decay.unbind(0), states.unbind(0), strict=True):
        state = torch.addcmul(h, a, state, out=h)


def _run(steps: _Steps, state: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return y without skip (L, batch, K, E), the last state and the states at the chunks' starts."""
    work = _Workspace(steps, buffers=2)
    chunks = work.chunks(steps.u.shape[0])
    y = torch.empty_like(steps.u)
    starts = state.new_empty(len(chunks) if save else 0, *state.shape)
    for index, chunk in enumerate(chunks):
        if save:
            starts[index] = state
        decay, states = work[chunk]
        _fill_states(steps, chunk, state, decay, states)
        state = states[-1].clone()
        torch.sum(states.mul_(steps.C[chunk].unsqueeze(-2)), -1, out=y[chunk])
    return y, state, starts


def _run_backward(
    grad: Tensor, grad_state: Tensor, steps: _Steps, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return gradients of delta, u, A, B, C and the initial state; ``grad`` (L, batch, K, E) is that of y."""
    delta, u, A, B, C, _ = steps
    d_delta, d_u, d_B, d_C = (torch.empty_like(t) for t in (delta, u, B, C))
    d_A = torch.zeros_like(A)
    work = _Workspace(steps, buffers=4)
    chunks = work.chunks(u.shape[0])
    for index in range(len(chunks) - 1, -1, -1):
        chunk = chunks[index]
        decay, states, g, scratch = work[chunk]
        _fill_states(steps, chunk, starts[index], decay, states)
        torch.mul(grad[chunk].unsqueeze(-1), C[chunk].unsqueeze(-2), out=g)
        for h, a in zip(reversed(g.unbind(0)), reversed(decay.unbind(0)), strict=True):
            h += grad_state  # h becomes the gradient of this step's state
            grad_state = h * a
        torch.mul(states, grad[chunk].unsqueeze(-1), out=scratch)
        torch.sum(scratch, -2, out=d_C[chunk])
        torch.mul(g, (delta[chunk] * u[chunk]).unsqueeze(-1), out=scratch)
        torch.sum(scratch, -2, out=d_B[chunk])
        entry = torch.sum(torch.mul(g, B[chunk].unsqueeze(-2), out=scratch), -1)
        torch.mul(decay, g, out=scratch)
        scratch[0] *= starts[index]
        scratch[1:] *= states[:-1]  # gradient of the decay times the decay
        d_u[chunk] = entry * delta[chunk]
        torch.mul(scratch, A, out=g)
        d_delta[chunk] = (entry * u[chunk]).add_(g.sum(-1))
        d_A += scratch.mul_(delta[chunk].unsqueeze(-1)).sum((0, 1))
    return d_delta, d_u, d_A, d_B, d_C, grad_state


def _gather(tensor: Tensor, order: Tensor) -> Tensor:
    """Visit pixels: (batch, L, K, X), or (batch, L, X) shared by all directions -> (L, batch, K, X)."""
    visits = order.T
    if tensor.dim() == 3:
        return _wide(tensor).transpose(0, 1)[visits].transpose(1, 2)
    directions = torch.arange(order.shape[0], device=order.device)
    return _wide(tensor).transpose(0, 1)[visits, :, directions].transpose(1, 2)


def _inverse(order: Tensor) -> Tensor:
    steps = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, steps)


def _directional_steps(inputs: DirectionalInputs) -> tuple[_Steps, Tensor, Tensor]:
    """Return the recurrence in visiting order, dt (L, batch, K, R) and the skip's input u (L, batch, K, E)."""
    order = inputs.order
    dt = _gather(inputs.dt, order)
    raw = torch.einsum("lbkr,ker->lbke", dt, _wide(inputs.dt_weight)) + _wide(inputs.dt_bias)
    u = _gather(inputs.u, order)
    steps = _steps(F.softplus(raw), u.contiguous(), _wide(inputs.A), _gather(inputs.B, order), _gather(inputs.C, order))
    return steps, dt, raw


def directional_saved_numel(inputs: DirectionalInputs) -> int:
    """Count the numbers forward saves: one state for every chunk."""
    batch, length, _ = inputs.u.shape
    numel = batch * inputs.A.numel()
    return -(-length // _chunk_steps(numel)) * numel


def directional_forward(inputs: DirectionalInputs, save: bool) -> tuple[Tensor, Tensor]:
    """Forward of the backend protocol; saves the state (float32) at each chunk's start, flattened."""
    steps, _, _ = _directional_steps(inputs)
    state = steps.u.new_zeros(*steps.u.shape[1:], steps.A.shape[-1])
    y, _, starts = _run(steps, state, save)
    y += _wide(inputs.D) * steps.u
    back = _inverse(inputs.order)
    total = y.new_zeros(y.shape[0], y.shape[1], y.shape[3])
    for k in range(back.shape[0]):
        total += y[back[k], :, k]
    return total.transpose(0, 1).to(inputs.u.dtype).contiguous(), starts.flatten()


def _to_pixels(tensor: Tensor, back: Tensor, like: Tensor) -> Tensor:
    """Inverse of :func:`_gather` for a tensor of its own for each direction."""
    directions = torch.arange(back.shape[0], device=back.device)
    return tensor.transpose(1, 2)[back.T, directions].movedim(2, 0).to(like.dtype)


def directional_backward(grad: Tensor, inputs: DirectionalInputs, saved: Tensor) -> list[Tensor]:
    """Backward of the backend protocol."""
    steps, dt, raw = _directional_steps(inputs)
    starts = saved.view(-1, *steps.u.shape[1:], steps.A.shape[-1])
    grad_y = _gather(grad, inputs.order).contiguous()
    d_delta, d_u, d_A, d_B, d_C, _ = _run_backward(grad_y, torch.zeros_like(starts[0]), steps, starts)
    d_u += grad_y * _wide(inputs.D)
    d_D = torch.einsum("lbke,lbke->ke", grad_y, steps.u)
    d_raw = d_delta * torch.sigmoid(raw)
    d_dt = torch.einsum("lbke,ker->lbkr", d_raw, _wide(inputs.dt_weight))
    d_weight = torch.einsum("lbke,lbkr->ker", d_raw, dt)
    back = _inverse(inputs.order)
    grads = [
        _to_pixels(d_u, back, inputs.u).sum(2),
        _to_pixels(d_dt, back, inputs.dt),
        d_A,
        _to_pixels(d_B, back, inputs.B),
        _to_pixels(d_C, back, inputs.C),
        d_D,
        d_weight,
        d_raw.sum((0, 1)),
    ]
    return [g.to(t.dtype).contiguous() for g, t in zip(grads, inputs[:-1], strict=True)]


def _sequence_steps(inputs: SequenceInputs) -> tuple[_Steps, Tensor]:
    """Return the recurrence of the plain scan, a group for a direction, and delta before softplus."""
    batch, channels, length = inputs.u.shape
    groups = inputs.B.shape[1]

    def step_major(tensor: Tensor) -> Tensor:
        return _wide(tensor).reshape(batch, groups, -1, length).permute(3, 0, 1, 2).contiguous()

    raw = step_major(inputs.delta)
    if inputs.delta_bias is not None:
        raw = raw + _wide(inputs.delta_bias).view(groups, -1)
    delta = F.softplus(raw) if inputs.softplus else raw
    A = _wide(inputs.A).view(groups, channels // groups, -1)
    return _steps(delta, step_major(inputs.u), A, step_major(inputs.B), step_major(inputs.C)), raw


def sequence_saved_numel(inputs: SequenceInputs) -> int:
    """Count the numbers forward saves: one state for every chunk."""
    numel = inputs.u.shape[0] * inputs.A.numel()
    return -(-inputs.u.shape[2] // _chunk_steps(numel)) * numel


def sequence_forward(inputs: SequenceInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Forward of the backend protocol; saves the state (float32) at each chunk's start, flattened."""
    steps, _ = _sequence_steps(inputs)
    state = steps.u.new_zeros(*steps.u.shape[1:], steps.A.shape[-1])
    if inputs.initial_state is not None:
        state = state + _wide(inputs.initial_state).view_as(state)
    y, last, starts = _run(steps, state, save)
    if inputs.D is not None:
        y += _wide(inputs.D).view(steps.A.shape[:2]) * steps.u
    y = y.permute(1, 2, 3, 0).reshape(inputs.u.shape).to(inputs.u.dtype)
    return y.contiguous(), last.reshape(inputs.u.shape[0], inputs.u.shape[1], -1), starts.flatten()


def sequence_backward(grad: Tensor, grad_last: Tensor, inputs: SequenceInputs, saved: Tensor) -> list[Tensor | None]:
    """Backward of the backend protocol."""
    steps, raw = _sequence_steps(inputs)
    starts = saved.view(-1, *steps.u.shape[1:], steps.A.shape[-1])
    grad_y = _wide(grad).reshape(*steps.u.shape[1:], -1).permute(3, 0, 1, 2).contiguous()
    grad_state = _wide(grad_last).reshape(starts[0].shape).clone()
    d_delta, d_u, d_A, d_B, d_C, d_state = _run_backward(grad_y, grad_state, steps, starts)
    d_raw = d_delta * torch.sigmoid(raw) if inputs.softplus else d_delta
    d_D = None
    if inputs.D is not None:
        d_u += grad_y * _wide(inputs.D).view(steps.A.shape[:2])
        d_D = torch.einsum("lbke,lbke->ke", grad_y, steps.u)
    d_bias = None if inputs.delta_bias is None else d_raw.sum((0, 1))

    def channels_first(tensor: Tensor) -> Tensor:
        return tensor.permute(1, 2, 3, 0)

    grads = [channels_first(d_u), channels_first(d_raw), d_A, channels_first(d_B), channels_first(d_C)]
    grads += [d_D, d_bias, None if inputs.initial_state is None else d_state]  # type: ignore[list-item]
    return [
        None if t is None or g is None else g.reshape(t.shape).to(t.dtype).contiguous()
        for g, t in zip(grads, inputs[:-1], strict=True)
    ]
