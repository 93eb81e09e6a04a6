"""The self-test passes what is right and names what is wrong, one result at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from medmamba_monai.ops.selective_scan import portable, reference, selftest
from medmamba_monai.ops.selective_scan.contract import DirectionalInputs, SequenceInputs

BOUNDS = selftest.Bounds(1e-5, products=5e-3)
ORDER = torch.tensor([[0, 1, 2, 3, 4], [3, 1, 4, 0, 2]])
MAP = selftest.map_problem(ORDER, channels=6, states=3, rank=2)
SEQUENCE = selftest.sequence_problem(length=5, channels=6, states=3)
OF_A_MAP = ["y", *(f"the gradient of {name}" for name in DirectionalInputs._fields[:-1])]
OF_A_SEQUENCE = ["y", "the last state", *(f"the gradient of {name}" for name in SequenceInputs._fields[:-1])]


def spoilt(index: int, change: Any) -> Any:
    """A backend one of whose results is changed: outputs are counted first, then gradients."""

    def changed(results: Any, first: int) -> Any:
        return [change(t) if first + i == index else t for i, t in enumerate(results)]

    def map_forward(inputs: DirectionalInputs, save: bool) -> Any:
        y, saved = portable.directional_forward(inputs, save)
        return (*changed([y], 0), saved)

    def sequence_forward(inputs: SequenceInputs, save: bool) -> Any:
        y, last, saved = portable.sequence_forward(inputs, save)
        return (*changed([y, last], 0), saved)

    return SimpleNamespace(
        directional_forward=map_forward,
        directional_backward=lambda *arguments: changed(portable.directional_backward(*arguments), 1),
        sequence_forward=sequence_forward,
        sequence_backward=lambda *arguments: changed(portable.sequence_backward(*arguments), 2),
    )


@pytest.mark.parametrize("backend", [portable, reference], ids=lambda module: module.__name__.split(".")[-1])
def test_what_is_right_passes(backend: Any) -> None:
    assert selftest.wrong_on_maps(backend, MAP, BOUNDS) is None
    assert selftest.wrong_on_sequences(backend, SEQUENCE, BOUNDS) is None
    assert selftest.wrong_on_sequences(backend, SEQUENCE._replace(initial_state=None), BOUNDS) is None


def last_number(tensor: Tensor) -> Tensor:
    """One number wrong, by a hundredth of the largest."""
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    tensor.view(-1)[-1] += 0.01 * tensor.abs().max()
    return tensor


CHANGES = pytest.mark.parametrize(
    "change", [last_number, lambda t: t * torch.nan, lambda t: None], ids=["number", "nan", "none"]
)


@CHANGES
@pytest.mark.parametrize("label", OF_A_MAP)
def test_a_wrong_result_of_a_map_is_named(label: str, change: Any) -> None:
    reason = selftest.wrong_on_maps(spoilt(OF_A_MAP.index(label), change), MAP, BOUNDS)
    assert reason is not None and reason.startswith(f"in the directional scan {label} ")


@CHANGES
@pytest.mark.parametrize("label", OF_A_SEQUENCE)
def test_a_wrong_result_of_a_sequence_is_named(label: str, change: Any) -> None:
    reason = selftest.wrong_on_sequences(spoilt(OF_A_SEQUENCE.index(label), change), SEQUENCE, BOUNDS)
    assert reason is not None and reason.startswith(f"in the plain scan {label} ")


@pytest.mark.parametrize("label", OF_A_MAP)
def test_only_products_may_be_rounded(label: str) -> None:
    """To ten bits of the fraction, as TF32 has them."""
    rounded = spoilt(OF_A_MAP.index(label), lambda t: (t.view(torch.int32) & ~0x1FFF).view(torch.float32))
    passes = selftest.wrong_on_maps(rounded, MAP, BOUNDS) is None
    assert passes == (label in ("the gradient of dt", "the gradient of dt_weight"))
