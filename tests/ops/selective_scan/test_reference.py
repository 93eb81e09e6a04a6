"""The reference against numpy written out element by element, and against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medmamba_monai.ops.selective_scan import reference

from . import problems


def element_by_element(inputs: problems.DirectionalInputs) -> np.ndarray:
    """The formulas of contract.py with one loop for every index, in Python floats."""
    u, dt, A, B, C, D, weight, bias, order = (t.tolist() for t in inputs)
    batch, length, channels = inputs.u.shape
    directions, _, states = inputs.A.shape
    y = np.zeros((batch, length, channels))
    for b in range(batch):
        for k in range(directions):
            for e in range(channels):
                h = [0.0] * states
                for t in range(length):
                    p = order[k][t]
                    raw = sum(w * x for w, x in zip(weight[k][e], dt[b][p][k], strict=True)) + bias[k][e]
                    delta = math.log1p(math.exp(raw))
                    for n in range(states):
                        h[n] = math.exp(delta * A[k][e][n]) * h[n] + delta * B[b][p][k][n] * u[b][p][e]
                    y[b, p, e] += sum(c * x for c, x in zip(C[b][p][k], h, strict=True)) + D[k][e] * u[b][p][e]
    return y


@pytest.mark.parametrize("spatial", [(2, 3), (5, 1), (2, 2, 3)])
@pytest.mark.parametrize("scan", ["cross", "zigzag"])
def test_equals_the_formulas(spatial: tuple[int, ...], scan: str) -> None:
    inputs = problems.directional(spatial, batch=2, channels=3, rank=2, states=2, scan=scan)
    assert np.allclose(reference.directional_scan(inputs).numpy(), element_by_element(inputs), rtol=1e-12, atol=1e-12)


def test_sequence_is_one_direction_of_the_directional_scan() -> None:
    inputs = problems.directional((1, 9), scan="raster")
    y, last = reference.sequence_scan(
        problems.SequenceInputs(
            u=inputs.u.transpose(1, 2),
            delta=(inputs.dt[:, :, 0] @ inputs.dt_weight[0].T).transpose(1, 2),
            A=inputs.A[0],
            B=inputs.B[:, :, 0].transpose(1, 2)[:, None],
            C=inputs.C[:, :, 0].transpose(1, 2)[:, None],
            D=inputs.D[0],
            delta_bias=inputs.dt_bias[0],
            initial_state=None,
            softplus=True,
        )
    )
    assert torch.allclose(y.transpose(1, 2), reference.directional_scan(inputs))
    assert last.shape == (1, 6, 4)


def test_initial_state_continues_a_sequence() -> None:
    whole = problems.sequence(12)
    y, last = reference.sequence_scan(whole)

    def part(begin: int, end: int, state: torch.Tensor | None) -> problems.SequenceInputs:
        cut = slice(begin, end)
        return whole._replace(
            u=whole.u[..., cut], delta=whole.delta[..., cut], B=whole.B[..., cut], C=whole.C[..., cut],
            initial_state=state,
        )  # fmt: skip

    first, middle = reference.sequence_scan(part(0, 5, whole.initial_state))
    second, end = reference.sequence_scan(part(5, 12, middle))
    assert torch.allclose(torch.cat([first, second], 2), y)
    assert torch.allclose(end, last)


def test_gradients_are_finite_differences() -> None:
    inputs = problems.directional((2, 3), channels=3, rank=1, states=2)
    tensors = [t.requires_grad_() for t in inputs[:-1]]
    assert torch.autograd.gradcheck(
        lambda *t: reference.directional_scan(problems.DirectionalInputs(*t, order=inputs.order)), tensors
    )
