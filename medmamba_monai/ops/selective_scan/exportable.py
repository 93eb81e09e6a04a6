"""Both scans with aten operators only and no custom code, for what operators of our own take no part in.

That is TorchScript, torch.export and ONNX for the directional scan, and for both what differentiable.py lists.

Chunks keep the graph small: first every chunk runs from a zero state, all chunks at once, keeping the products of its
decays; then the chunks' end states are carried along, in log2 of as many steps as there are chunks. Where A is not
positive, all products are of decays <= 1 and the form is as stable as the loop; where it is, they may overflow before
the states do. Imports torch only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["directional_scan", "selective_scan"]


def _visit(tensor: Tensor, order: Tensor) -> Tensor:
    """(batch, L, K, X) by pixel -> (batch, L, K, X) by step."""
    index = order.transpose(0, 1).unsqueeze(0).unsqueeze(3).expand(tensor.shape[0], -1, -1, tensor.shape[3])
    return torch.gather(tensor, 1, index)


def _recurrence(decay: Tensor, entry: Tensor, longest: int = 16) -> Tensor:
    """States of h_t = decay_t * h_{t-1} + entry_t along axis 1 of (batch, L, ...), from a zero state.

    A chunk has ``longest`` steps: few enough to unroll, enough that the carried states are a small part of all.
    """
    length = decay.shape[1]
    span = min(longest, length)
    chunks = (length + span - 1) // span
    padding = [0, 0] * (decay.dim() - 2) + [0, chunks * span - length]
    shape = list(decay.shape)
    folded = shape[:1] + [chunks, span] + shape[2:]
    decay = F.pad(decay, padding).reshape(folded)
    entry = F.pad(entry, padding).reshape(folded)
    factors, terms = decay.unbind(2), entry.unbind(2)
    state, product = terms[0], factors[0]
    states, products = [state], [product]
    for step in range(1, span):
        state = factors[step] * state + terms[step]
        product = factors[step] * product
        states.append(state)
        products.append(product)
    local, reach = torch.stack(states, 2), torch.stack(products, 2)
    states_all = local + reach * _carried(product, state).unsqueeze(2)
    return states_all.reshape(shape[:1] + [chunks * span] + shape[2:]).narrow(1, 0, length)


def _carried(product: Tensor, state: Tensor) -> Tensor:
    """What enters each chunk (batch, chunks, ...): the states at the chunks' ends, carried on by doubling strides."""
    chunks = state.shape[1]
    stride = 1
    while stride < chunks:
        rest = chunks - stride
        far = product.narrow(1, stride, rest)
        reached = far * state.narrow(1, 0, rest) + state.narrow(1, stride, rest)
        state = torch.cat([state.narrow(1, 0, stride), reached], 1)
        product = torch.cat([product.narrow(1, 0, stride), far * product.narrow(1, 0, rest)], 1)
        stride *= 2
    return torch.cat([torch.zeros_like(state.narrow(1, 0, 1)), state.narrow(1, 0, chunks - 1)], 1)


def directional_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    order: Tensor,
) -> Tensor:
    """Directional scan; arguments and result as in :class:`~.contract.DirectionalInputs`."""
    dtype = u.dtype
    directions = order.shape[0]
    if dtype != torch.float64:
        u, dt, A, B, C = u.float(), dt.float(), A.float(), B.float(), C.float()
        D, dt_weight, dt_bias = D.float(), dt_weight.float(), dt_bias.float()
    visited = _visit(u.unsqueeze(2).expand(-1, -1, directions, -1), order)
    delta = F.softplus(torch.einsum("blkr,ker->blke", _visit(dt, order), dt_weight) + dt_bias)
    decay = torch.exp(delta.unsqueeze(-1) * A)
    entry = (delta * visited).unsqueeze(-1) * _visit(B, order).unsqueeze(-2)
    states = _recurrence(decay, entry)
    y = (states * _visit(C, order).unsqueeze(-2)).sum(-1) + D * visited
    steps = torch.arange(order.shape[1], device=order.device).expand_as(order)
    inverse = torch.empty_like(order).scatter(1, order, steps)  # sorting would do too, at run time
    return _visit(y, inverse).sum(2).to(dtype)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Plain scan; arguments as in :class:`~.contract.SequenceInputs`, results y and the last state."""
    dtype, groups = u.dtype, B.shape[1]
    if dtype != torch.float64:
        u, delta, A, B, C = u.float(), delta.float(), A.float(), B.float(), C.float()
    if delta_bias is not None:
        delta = delta + delta_bias.to(delta).unsqueeze(1)
    delta = F.softplus(delta) if softplus else delta
    by_step, delta = u.transpose(1, 2), delta.transpose(1, 2)  # (batch, L, E)
    B, C = B.permute(0, 3, 1, 2).unsqueeze(3), C.permute(0, 3, 1, 2).unsqueeze(3)  # (batch, L, G, 1, N)
    decay = torch.exp(delta.unsqueeze(-1) * A)
    entry = ((delta * by_step).unflatten(2, [groups, -1]).unsqueeze(-1) * B).flatten(2, 3)
    if initial_state is not None:
        first = entry.narrow(1, 0, 1) + decay.narrow(1, 0, 1) * initial_state.to(decay).unsqueeze(1)
        entry = torch.cat([first, entry.narrow(1, 1, entry.shape[1] - 1)], 1)
    states = _recurrence(decay, entry)
    y = (states.unflatten(2, [groups, -1]) * C).sum(-1).flatten(2, 3)
    if D is not None:
        y = y + D.to(y) * by_step
    return y.transpose(1, 2).to(dtype), states.select(1, -1)
