"""What a compiled backend has to reproduce before its first use: both scans on small problems, forward and backward.

Imports contract.py and reference.py. The problems are made of sines, so that no generator of random numbers is touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from . import reference
from .contract import DirectionalInputs, ScanBackend, SequenceInputs

__all__ = ["Bounds", "map_problem", "sequence_problem", "wrong_on_maps", "wrong_on_sequences"]


class Bounds(NamedTuple):
    """The largest error that passes: the largest difference over the largest magnitude of the reference.

    Attributes:
        each: of every result but those below.
        products: of the gradients of dt and dt_weight. Where a backend has PyTorch multiply matrices for them, its
            caller may have allowed TF32, which rounds to 11 bits.
    """

    each: float
    products: float

    def of(self, name: str) -> float:
        """The bound of an input's gradient."""
        return self.products if name in ("dt", "dt_weight") else self.each


def _wave(*shape: int, rate: float) -> Tensor:
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float32) * rate).view(shape)


def map_problem(order: Tensor, channels: int, states: int, rank: int) -> DirectionalInputs:
    """A problem of the directional scan, float32 on the CPU.

    Args:
        order: (K, L) int64, the pixel orders.
        channels: E.
        states: N.
        rank: R of the step sizes.
    """
    directions, length = order.shape
    return DirectionalInputs(
        u=_wave(1, length, channels, rate=0.7),
        dt=_wave(1, length, directions, rank, rate=1.1),
        A=-1.5 + _wave(directions, channels, states, rate=0.3),
        B=_wave(1, length, directions, states, rate=0.9),
        C=_wave(1, length, directions, states, rate=1.3),
        D=_wave(directions, channels, rate=0.2),
        dt_weight=_wave(directions, channels, rank, rate=0.5),
        dt_bias=_wave(directions, channels, rate=0.4),
        order=order,
    )


def sequence_problem(length: int, channels: int, states: int) -> SequenceInputs:
    """A problem of the plain scan with two groups and everything optional, float32 on the CPU.

    Args:
        length: L.
        channels: E, an even number.
        states: N.
    """
    return SequenceInputs(
        u=_wave(2, channels, length, rate=0.7),
        delta=_wave(2, channels, length, rate=1.1) - 0.5,
        A=-1.5 + _wave(channels, states, rate=0.3),
        B=_wave(2, 2, states, length, rate=0.9),
        C=_wave(2, 2, states, length, rate=1.3),
        D=_wave(channels, rate=0.2),
        delta_bias=_wave(channels, rate=0.4),
        initial_state=_wave(2, channels, states, rate=0.6),
        softplus=True,
    )


def wrong_on_maps(
    backend: ScanBackend, inputs: DirectionalInputs, bounds: Bounds, device: torch.device | None = None
) -> str | None:
    """Run the directional scan and its backward.

    Args:
        backend: the module.
        inputs: on the CPU.
        bounds: what errors pass.
        device: where the backend runs; None for the CPU.

    Returns:
        What differs from the reference in float64 by more than its bound; None when nothing does.
    """
    exact = DirectionalInputs(*(t.double() if t.is_floating_point() else t for t in inputs))
    here = DirectionalInputs(*(t.to(device) for t in inputs))
    grad = _wave(*inputs.u.shape, rate=1.7)
    y, saved = backend.directional_forward(here, save=True)
    got = [y, *backend.directional_backward(grad.to(device), here, saved)]
    nothing = exact.u.new_empty(0)
    want = [reference.directional_scan(exact), *reference.directional_backward(grad.double(), exact, nothing)]
    names = DirectionalInputs._fields[:-1]
    labels = ["y", *(f"the gradient of {name}" for name in names)]
    limits = [bounds.each, *(bounds.of(name) for name in names)]
    reason = _first_over(zip(labels, limits, got, want, strict=True))
    return reason and f"in the directional scan {reason}"


def wrong_on_sequences(
    backend: ScanBackend, inputs: SequenceInputs, bounds: Bounds, device: torch.device | None = None
) -> str | None:
    """Run the plain scan and its backward; arguments and result as of :func:`wrong_on_maps`.

    Without an initial state the last one has no gradient: a backend may be without both.
    """
    tensors = inputs[:-1]
    exact = SequenceInputs._make((*(None if t is None else t.double() for t in tensors), inputs.softplus))
    here = SequenceInputs._make((*(None if t is None else t.to(device) for t in tensors), inputs.softplus))
    grad = _wave(*inputs.u.shape, rate=1.7)
    state = (*inputs.u.shape[:2], inputs.A.shape[1])
    grad_last = torch.zeros(state) if inputs.initial_state is None else _wave(*state, rate=1.9)
    y, last, saved = backend.sequence_forward(here, save=True)
    got = [y, last, *backend.sequence_backward(grad.to(device), grad_last.to(device), here, saved)]
    nothing = exact.u.new_empty(0)
    want = [
        *reference.sequence_scan(exact),
        *reference.sequence_backward(grad.double(), grad_last.double(), exact, nothing),
    ]
    labels = ["y", "the last state", *(f"the gradient of {name}" for name in SequenceInputs._fields[:-1])]
    present = [(label, bounds.each, a, b) for label, a, b in zip(labels, got, want, strict=True) if b is not None]
    reason = _first_over(iter(present))
    return reason and f"in the plain scan {reason}"


def _first_over(results: Iterator[tuple[str, float, Tensor | None, Tensor | None]]) -> str | None:
    """Compare (label, bound, result, truth)."""
    for label, bound, got, want in results:
        if got is None or want is None:
            return f"{label} is missing"
        error = ((got.cpu().double() - want).abs().max() / want.abs().max()).item()
        if not error <= bound:  # a NaN is over any bound
            return f"{label} differs from the reference by {error:.1e}"
    return None
