"""The portable path against the reference in float64, against finite differences, and in hard cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from medmamba_monai.ops import directional_scan, selective_scan
from medmamba_monai.ops.selective_scan import portable, reference

from . import problems


@pytest.fixture
def poisoned() -> Iterator[None]:
    with problems.determinism():
        yield


def compare(
    inputs: problems.DirectionalInputs, tolerance: float, truth: problems.DirectionalInputs | None = None
) -> None:
    truth = truth or inputs
    y, saved = portable.directional_forward(inputs, True)
    assert saved.numel() == portable.directional_saved_numel(inputs)
    assert problems.error(y, reference.directional_scan(truth)) <= tolerance
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = reference.directional_backward(grad, truth, saved)
    result = portable.directional_backward(grad.to(y.dtype), inputs, saved)
    for name, a, b in zip(inputs._fields, result, expected, strict=False):
        assert a.dtype == getattr(inputs, name).dtype
        assert problems.error(a, b) <= tolerance, name


@pytest.mark.parametrize("spatial", [(1, 1), (5, 7), (9, 2), (13, 17), (3, 4, 5), (2, 3, 2)])
@pytest.mark.parametrize("states", [1, 8, 16])
def test_equals_the_reference(spatial: tuple[int, ...], states: int) -> None:
    compare(problems.directional(spatial, batch=2, states=states), 1e-12)


@pytest.mark.parametrize("side", [28, 56, 112])
def test_equals_the_reference_on_long_sequences(side: int) -> None:
    inputs = problems.directional((side, side), channels=4, rank=1, scan="bidirectional")
    assert problems.error(portable.directional_forward(inputs, False)[0], reference.directional_scan(inputs)) <= 1e-12


@pytest.mark.parametrize("scan", ["cross", "raster", "bidirectional", "zigzag", "diagonal", "hilbert"])
def test_every_scan(scan: str) -> None:
    compare(problems.directional((5, 6), scan=scan), 1e-12)


@pytest.mark.parametrize("step_scale", [0.01, 1.0, 30.0])
def test_single_precision_and_extreme_steps(poisoned: None, step_scale: float) -> None:
    """Steps from exp(-30) to 30: decays underflow to 0 and come near 1."""
    inputs = problems.directional((11, 7), batch=3, channels=8, states=16, dtype=torch.float32, step_scale=step_scale)
    compare(inputs, 1e-5, problems.to(inputs, torch.float64))


@pytest.mark.parametrize("step_scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("spatial", [(11, 7), (3, 4, 5)], ids=str)
def test_bfloat16(poisoned: None, spatial: tuple[int, ...], step_scale: float) -> None:
    inputs = problems.directional(spatial, channels=8, dtype=torch.bfloat16, step_scale=step_scale)
    compare(inputs, 1e-2, problems.to(inputs, torch.float64))


def test_non_contiguous_inputs() -> None:
    inputs = problems.directional((6, 5), batch=2)
    strided = problems.DirectionalInputs(
        *(torch.stack([t, t], -1)[..., 0].transpose(0, -1).contiguous().transpose(0, -1) for t in inputs[:-1]),
        order=inputs.order,
    )
    assert not strided.u.is_contiguous()
    compare(strided, 1e-12)


def test_gradcheck() -> None:
    inputs = problems.directional((2, 3), channels=3, rank=1, states=2)
    tensors = [t.requires_grad_() for t in inputs[:-1]]
    assert torch.autograd.gradcheck(lambda *t: directional_scan(*t, inputs.order, backend="portable"), tensors)


def compare_sequences(inputs: problems.SequenceInputs, tolerance: float) -> None:
    exact = problems.SequenceInputs._make(t.double() if isinstance(t, torch.Tensor) else t for t in inputs)
    y, last, saved = portable.sequence_forward(inputs, True)
    assert y.dtype == inputs.u.dtype
    truth, truth_last = reference.sequence_scan(exact)
    assert problems.error(y, truth) <= tolerance
    assert problems.error(last, truth_last) <= tolerance
    assert saved.numel() == portable.sequence_saved_numel(inputs)
    grads = (torch.randn_like(y), torch.randn_like(last))
    expected = reference.sequence_backward(grads[0].double(), grads[1].double(), exact, saved)
    result = portable.sequence_backward(*grads, inputs, saved)
    for name, a, b in zip(inputs._fields, result, expected, strict=False):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert a.dtype == getattr(inputs, name).dtype
            assert problems.error(a, b) <= tolerance, name


@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("length", [1, 2, 37, 300])
def test_sequences_equal_the_reference(poisoned: None, length: int, softplus: bool, optional: bool) -> None:
    compare_sequences(problems.sequence(length, optional=optional, softplus=softplus), 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str)
@pytest.mark.parametrize("optional", [True, False])
def test_sequences_in_lower_precision(poisoned: None, dtype: torch.dtype, tolerance: float, optional: bool) -> None:
    inputs = problems.sequence(200, channels=24, groups=3, states=5, optional=optional, dtype=dtype)
    compare_sequences(inputs, tolerance)


def test_sequence_gradcheck_with_state() -> None:
    inputs = problems.sequence(5, batch=1, channels=2, groups=1, states=2)
    tensors = [t.requires_grad_() for t in inputs[:-1]]

    def run(u, delta, A, B, C, D, bias, state):  # type: ignore[no-untyped-def]
        return selective_scan(u, delta, A, B, C, D, None, bias, True, True, state, backend="portable")

    assert torch.autograd.gradcheck(run, tensors)


@pytest.mark.parametrize("plant", ["order", "D", "dt_bias", "A"])
def test_a_planted_error_is_seen(plant: str) -> None:
    inputs = problems.directional((5, 7))
    wrong = {
        "order": lambda: inputs._replace(order=inputs.order[[1, 0, 2, 3]]),
        "D": lambda: inputs._replace(D=torch.zeros_like(inputs.D)),
        "dt_bias": lambda: inputs._replace(dt_bias=inputs.dt_bias * 1.001),
        "A": lambda: inputs._replace(A=inputs.A * 1.001),
    }[plant]()
    y, _ = portable.directional_forward(wrong, False)
    assert problems.error(y, reference.directional_scan(inputs)) > 1e-4
