"""The aten-only form against the reference, in eager mode, scripted and exported."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai.ops.selective_scan import exportable, reference

from . import problems


@pytest.mark.parametrize("spatial", [(1, 1), (1, 2), (5, 7), (8, 8), (3, 4, 5), (33, 31)])
@pytest.mark.parametrize("states", [1, 16])
def test_equals_the_reference(spatial: tuple[int, ...], states: int) -> None:
    inputs = problems.directional(spatial, batch=2, states=states)
    assert problems.error(exportable.directional_scan(*inputs), reference.directional_scan(inputs)) <= 1e-12


def test_scripted_serves_any_length() -> None:
    scripted = torch.jit.script(exportable.directional_scan)
    for spatial in [(2, 2), (7, 9), (2, 3, 4)]:
        inputs = problems.directional(spatial)
        assert problems.error(scripted(*inputs), reference.directional_scan(inputs)) <= 1e-12


def test_gradients_equal_the_reference() -> None:
    inputs = problems.directional((4, 5))
    tensors = [t.requires_grad_() for t in inputs[:-1]]
    y = exportable.directional_scan(*tensors, inputs.order)
    grad = torch.randn_like(y)
    expected = reference.directional_backward(grad, inputs, y)
    for a, b in zip(torch.autograd.grad(y, tensors, grad), expected, strict=True):
        assert problems.error(a, b) <= 1e-12


def test_extreme_steps_stay_finite() -> None:
    inputs = problems.directional((9, 9), dtype=torch.float32, step_scale=50.0)
    y = exportable.directional_scan(*inputs)
    truth = reference.directional_scan(problems.to(inputs, torch.float64))
    assert problems.error(y, truth) <= 1e-5
