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


def test_bfloat16_keeps_its_type() -> None:
    inputs = problems.directional((7, 9), channels=8, states=16, dtype=torch.bfloat16)
    truth = reference.directional_scan(problems.to(inputs, torch.float64))
    names = ("A", "D", "dt_weight", "dt_bias")
    for same in (inputs, inputs._replace(**{name: getattr(inputs, name).float() for name in names})):
        for scan in (exportable.directional_scan, torch.jit.script(exportable.directional_scan)):
            y = scan(*same)
            assert y.dtype == torch.bfloat16
            assert problems.error(y, truth) <= 1e-2


def test_strided_inputs() -> None:
    """Slices of one projection, as the network gives them, and tensors with every axis moved."""
    plain = problems.directional((4, 5), batch=2, rank=3, states=4)
    truth = reference.directional_scan(plain)
    dt, B, C = torch.cat([plain.dt, plain.B, plain.C], -1).split([3, 4, 4], -1)
    moved = [t.movedim(-1, 0).contiguous().movedim(0, -1) for t in plain]
    assert not moved[0].is_contiguous()
    for inputs in (plain._replace(dt=dt, B=B, C=C), problems.DirectionalInputs(*moved)):
        assert problems.error(exportable.directional_scan(*inputs), truth) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_long_sequence(dtype: torch.dtype) -> None:
    """112 x 112 pixels: carried over 784 chunks, in ten doublings."""
    inputs = problems.directional((112, 112), channels=3, rank=1, states=2, scan="bidirectional", dtype=dtype)
    y = exportable.directional_scan(*inputs)
    truth = reference.directional_scan(problems.to(inputs, torch.float64))
    assert problems.error(y, truth) <= (1e-12 if dtype == torch.float64 else 1e-5)
