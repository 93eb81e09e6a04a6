"""The readable truth: both scans as plain loops over steps, in float32 or float64. Imports contract.py only.

Every other backend is tested against this file, and this file against float64 finite differences. It discretises
everything first and then walks along the sequence, as the formulas are usually read; speed is no concern here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import DirectionalInputs, SequenceInputs

__all__ = [
    "directional_backward",
    "directional_forward",
    "directional_saved_numel",
    "directional_scan",
    "sequence_backward",
    "sequence_forward",
    "sequence_saved_numel",
    "sequence_scan",
    "unavailable",
]


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def sequence_scan(inputs: SequenceInputs) -> tuple[Tensor, Tensor]:
    """Run the plain scan, differentiable by autograd.

    Args:
        inputs: see :class:`~.contract.SequenceInputs`.

    Returns:
        y (batch, E, L) in u's dtype and the last state (batch, E, N), in float32 or float64.
    """
    u, delta, A, B, C = (_wide(tensor) for tensor in inputs[:5])
    if inputs.delta_bias is not None:
        delta = delta + _wide(inputs.delta_bias)[:, None]
    if inputs.softplus:
        delta = F.softplus(delta)
    channels_per_group = u.shape[1] // B.shape[1]
    B, C = (matrix.repeat_interleave(channels_per_group, dim=1) for matrix in (B, C))  # (batch, E, N, L)
    decay = torch.exp(torch.einsum("bel,en->beln", delta, A))
    entry = torch.einsum("bel,benl,bel->beln", delta, B, u)
    state = u.new_zeros(u.shape[0], u.shape[1], A.shape[1])
    if inputs.initial_state is not None:
        state = state + _wide(inputs.initial_state)
    outputs = []
    for t in range(u.shape[2]):
        state = decay[:, :, t] * state + entry[:, :, t]
        outputs.append(torch.einsum("ben,ben->be", state, C[:, :, :, t]))
    y = torch.stack(outputs, dim=2)
    if inputs.D is not None:
        y = y + _wide(inputs.D)[:, None] * u
    return y.to(inputs.u.dtype), state


def directional_scan(inputs: DirectionalInputs) -> Tensor:
    """Run the directional scan one direction at a time, on copies in visiting order; differentiable by autograd.

    Args:
        inputs: see :class:`~.contract.DirectionalInputs`.

    Returns:
        y (batch, L, E) in u's dtype.
    """
    u, dt, A, B, C, D, dt_weight, dt_bias = (_wide(tensor) for tensor in inputs[:-1])
    total = torch.zeros_like(u)
    for k, order in enumerate(inputs.order):
        steps = dt[:, order, k] @ dt_weight[k].T + dt_bias[k]
        sequence = SequenceInputs(
            u=u[:, order].transpose(1, 2),
            delta=steps.transpose(1, 2),
            A=A[k],
            B=B[:, order, k].transpose(1, 2)[:, None],
            C=C[:, order, k].transpose(1, 2)[:, None],
            D=D[k],
            delta_bias=None,
            initial_state=None,
            softplus=True,
        )
        y, _ = sequence_scan(sequence)
        total = total.index_add(1, order, y.transpose(1, 2))
    return total.to(inputs.u.dtype)


def unavailable(device: torch.device) -> str | None:
    """Return None: the loop runs on every device."""
    return None


def directional_saved_numel(inputs: DirectionalInputs) -> int:
    """Return 0: backward starts again from the inputs."""
    return 0


sequence_saved_numel = directional_saved_numel


def directional_forward(inputs: DirectionalInputs, save: bool) -> tuple[Tensor, Tensor]:
    """Forward of the backend protocol; nothing is saved."""
    return directional_scan(inputs), inputs.u.new_empty(0, dtype=torch.float32)


def sequence_forward(inputs: SequenceInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Forward of the backend protocol; nothing is saved."""
    y, last = sequence_scan(inputs)
    return y, last, inputs.u.new_empty(0, dtype=torch.float32)


def directional_backward(grad: Tensor, inputs: DirectionalInputs, saved: Tensor) -> list[Tensor]:
    """Differentiate the loop again with autograd."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in inputs[:-1]]
        y = directional_scan(DirectionalInputs._make((*leaves, inputs.order)))
    return list(torch.autograd.grad(y, leaves, grad))


def sequence_backward(grad: Tensor, grad_last: Tensor, inputs: SequenceInputs, saved: Tensor) -> list[Tensor | None]:
    """Differentiate the loop again with autograd."""
    with torch.enable_grad():
        leaves = [None if t is None else t.detach().requires_grad_() for t in inputs[:-1]]
        y, last = sequence_scan(SequenceInputs._make((*leaves, inputs.softplus)))
    present = [leaf for leaf in leaves if leaf is not None]
    grads = iter(torch.autograd.grad([y, last], present, [grad, grad_last.to(last.dtype)]))
    return [None if leaf is None else next(grads) for leaf in leaves]
