"""The directional scan with aten operators only and no custom code, for TorchScript, torch.export and ONNX.

Two passes over chunks of about sqrt(L) steps keep the graph small: first every chunk runs from a zero state, all chunks
at once, keeping the products of its decays; then the chunks' end states are carried along. All products are of decays
<= 1, so the form is as stable as the loop. Imports torch only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["directional_scan"]


def _chunk_length(length: int) -> int:
    span = 1
    while span * span < length:
        span += 1
    return span


def _visit(tensor: Tensor, order: Tensor) -> Tensor:
    """(batch, L, K, X) by pixel -> (batch, L, K, X) by step."""
    index = order.transpose(0, 1)[None, :, :, None].expand(tensor.shape[0], -1, -1, tensor.shape[3])
    return torch.gather(tensor, 1, index)


def _recurrence(decay: Tensor, entry: Tensor) -> Tensor:
    """States of h_t = decay_t * h_{t-1} + entry_t along axis 1 of (batch, L, ...), from a zero state."""
    length = decay.shape[1]
    span = _chunk_length(length)
    chunks = (length + span - 1) // span
    missing = chunks * span - length
    padding = [0, 0] * (decay.dim() - 2) + [0, missing]
    shape = list(decay.shape)
    folded = shape[:1] + [chunks, span] + shape[2:]
    decay = F.pad(decay, padding).reshape(folded)
    entry = F.pad(entry, padding).reshape(folded)
    state, product = entry[:, :, 0], decay[:, :, 0]
    states, products = [state], [product]
    for step in range(1, span):
        a = decay[:, :, step]
        state = a * state + entry[:, :, step]
        product = a * product
        states.append(state)
        products.append(product)
    local, reach = torch.stack(states, 2), torch.stack(products, 2)
    carry = torch.zeros_like(state[:, 0])
    carries = [carry]
    for chunk in range(chunks - 1):
        carry = product[:, chunk] * carry + state[:, chunk]
        carries.append(carry)
    states_all = local + reach * torch.stack(carries, 1).unsqueeze(2)
    return states_all.reshape(shape[:1] + [chunks * span] + shape[2:])[:, :length]


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
        u, dt, B, C = u.float(), dt.float(), B.float(), C.float()
    visited = _visit(u.unsqueeze(2).expand(-1, -1, directions, -1), order)
    delta = F.softplus(torch.einsum("blkr,ker->blke", _visit(dt, order), dt_weight) + dt_bias)
    decay = torch.exp(delta.unsqueeze(-1) * A)
    entry = (delta * visited).unsqueeze(-1) * _visit(B, order).unsqueeze(-2)
    states = _recurrence(decay, entry)
    y = (states * _visit(C, order).unsqueeze(-2)).sum(-1) + D * visited
    inverse = torch.argsort(order, dim=1)
    return _visit(y, inverse).sum(2).to(dtype)
