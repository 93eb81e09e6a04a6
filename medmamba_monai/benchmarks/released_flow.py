"""The data flow of the released network's scan, written by us as a baseline: copies, stacked, scanned, put back.

Four copies of the map in float32, one for each direction, are stacked along the channels and scanned as one sequence by
mamba-ssm's kernel, as the released code does on GPUs, or by the reference loop, as it does on CPUs. Imports ops.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..ops.selective_scan import reference
from ..ops.selective_scan.contract import DirectionalInputs, SequenceInputs

__all__ = ["Kernel", "directional_scan"]

Kernel = Callable[[SequenceInputs], tuple[Tensor, Tensor]]


def directional_scan(inputs: DirectionalInputs, kernel: Kernel = reference.sequence_scan) -> Tensor:
    """Directional scan on stacked copies; arguments and result as in :class:`DirectionalInputs`.

    Args:
        inputs: of the scan.
        kernel: scans the stacked sequences; returns their output and last state.
    """
    *tensors, order = inputs
    u, dt, A, B, C, D, dt_weight, dt_bias = (t if t.dtype == torch.float64 else t.float() for t in tensors)
    directions, channels, states = A.shape
    batch, length, _ = u.shape
    number = torch.arange(directions, device=u.device)[:, None]
    copies = u[:, order].transpose(2, 3).reshape(batch, -1, length)
    steps = torch.einsum("bklr,ker->bkel", dt[:, order, number], dt_weight).reshape(batch, -1, length)
    y, _ = kernel(
        SequenceInputs(
            u=copies,
            delta=steps,
            A=A.reshape(-1, states),
            B=B[:, order, number].transpose(2, 3),
            C=C[:, order, number].transpose(2, 3),
            D=D.flatten(),
            delta_bias=dt_bias.flatten(),
            initial_state=None,
            softplus=True,
        )
    )
    rows = y.view(batch, directions, channels, length).transpose(2, 3)
    total = torch.zeros_like(rows[:, 0])
    for k in range(directions):
        total = total.index_add(1, order[k], rows[:, k])
    return total.to(inputs.u.dtype)
