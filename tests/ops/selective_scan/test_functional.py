"""The operators as torch sees them: opcheck, autocast, compile, and the messages for wrong arguments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medmamba_monai.errors import ConfigError
from medmamba_monai.ops import directional_scan, selective_scan, strides
from medmamba_monai.ops.selective_scan import cpu, reference

from . import problems

MISSING = cpu.unavailable(torch.device("cpu"))
needs_library = pytest.mark.skipif(MISSING is not None, reason=f"scan backend cpu: {MISSING}")
CPU_BACKENDS = pytest.mark.parametrize("backend", ["portable", pytest.param("cpu", marks=needs_library)])


def leaves(inputs: problems.DirectionalInputs) -> list[torch.Tensor]:
    return [t.clone().requires_grad_() for t in inputs[:-1]] + [inputs.order]


@CPU_BACKENDS
def test_opcheck_directional(backend: str) -> None:
    inputs = leaves(problems.directional((4, 5), dtype=torch.float32))
    torch.library.opcheck(torch.ops.medmamba.directional_scan.default, (*inputs, [], backend, True))


@CPU_BACKENDS
@pytest.mark.parametrize("optional", [True, False])
def test_opcheck_sequence(backend: str, optional: bool) -> None:
    inputs = problems.sequence(9, optional=optional, dtype=torch.float32)
    tensors = [t if t is None else t.clone().requires_grad_() for t in inputs[:-1]]
    torch.library.opcheck(torch.ops.medmamba.selective_scan.default, (*tensors, True, backend, True))


def test_compiles_without_graph_break() -> None:
    inputs = leaves(problems.directional((4, 5), dtype=torch.float32))

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return directional_scan(*tensors, backend="portable").square().sum()

    torch.compile(loss, fullgraph=True, backend="aot_eager")(*inputs).backward()
    compiled = [t.grad.clone() for t in inputs[:-1]]
    for t in inputs[:-1]:
        t.grad = None
    loss(*inputs).backward()
    for a, t in zip(compiled, inputs[:-1], strict=True):
        assert torch.allclose(a, t.grad, rtol=1e-5, atol=1e-5)


def test_exports_as_an_operator() -> None:
    class Scan(torch.nn.Module):
        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            return directional_scan(*tensors, backend="portable")

    inputs = problems.directional((4, 5), dtype=torch.float32)
    program = torch.export.export(Scan(), tuple(inputs))
    assert any("medmamba" in str(node.target) for node in program.graph.nodes)
    assert torch.equal(program.module()(*inputs), Scan()(*inputs))


@CPU_BACKENDS
def test_autocast_lowers_activations_and_keeps_parameters(backend: str) -> None:
    inputs = leaves(problems.directional((4, 5), dtype=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        y = directional_scan(*inputs, backend=backend)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in inputs[:-1])
    rounded = problems.DirectionalInputs(*inputs)._replace(
        **{name: getattr(problems.DirectionalInputs(*inputs), name).bfloat16() for name in ("u", "dt", "B", "C")}
    )
    truth = reference.directional_scan(problems.to(rounded, torch.float64))
    assert problems.error(y.detach(), truth.detach()) <= 1e-2


@CPU_BACKENDS
def test_autocast_of_a_sequence(backend: str) -> None:
    """u, delta, B and C are rounded; parameters and states are not, and every gradient is float32."""
    inputs = problems.sequence(9, dtype=torch.float32)
    tensors = [t.clone().requires_grad_() for t in inputs[:-1] if t is not None]
    u, delta, A, B, C, D, bias, state = tensors
    with torch.autocast("cpu", torch.bfloat16):
        y, last = selective_scan(u, delta, A, B, C, D, None, bias, True, True, state, backend=backend)
    assert y.dtype == torch.bfloat16
    assert last.dtype == torch.float32
    (y.float().sum() + last.sum()).backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in tensors)
    rounded = inputs._replace(**{name: getattr(inputs, name).bfloat16() for name in ("u", "delta", "B", "C")})
    exact = [t.double() for t in rounded[:-1] if t is not None]
    truth, truth_last = reference.sequence_scan(problems.SequenceInputs(*exact, softplus=True))
    assert problems.error(y.detach(), truth) <= 1e-2
    assert problems.error(last.detach(), truth_last) <= 1e-5  # rounded parameters would be 1e-3 away


def test_gate_and_constant_matrices_follow_mamba() -> None:
    """z multiplies by SiLU(z); B of two axes is constant in time, with one row a channel."""
    plain = problems.sequence(7, channels=4, groups=4, states=3, optional=False)
    z, matrix = torch.randn_like(plain.u), plain.A.abs()
    y = selective_scan(plain.u, plain.delta, plain.A, matrix, matrix, z=z, delta_softplus=True, backend="portable")
    repeated = matrix[None, :, :, None].expand(2, -1, -1, 7)
    truth, _ = reference.sequence_scan(plain._replace(B=repeated, C=repeated))
    assert problems.error(y, truth * F.silu(z)) <= 1e-12


def mamba_in_numpy(  # type: ignore[no-untyped-def]
    u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, initial_state=None
) -> tuple[np.ndarray, np.ndarray]:
    """What mamba_ssm documents for selective_scan_fn, one number at a time: channel e reads group e // (E / G)."""
    batch, channels, length = u.shape
    per_group = channels // B.shape[1]
    y, h = np.empty(u.shape), np.zeros((batch, *A.shape)) if initial_state is None else initial_state.copy()
    for b, e, t in np.ndindex(batch, channels, length):
        step = delta[b, e, t] + (0.0 if delta_bias is None else delta_bias[e])
        step = math.log1p(math.exp(step)) if delta_softplus else step
        total = 0.0 if D is None else D[e] * u[b, e, t]
        for n in range(A.shape[1]):
            h[b, e, n] = math.exp(step * A[e, n]) * h[b, e, n] + step * B[b, e // per_group, n, t] * u[b, e, t]
            total += C[b, e // per_group, n, t] * h[b, e, n]
        gate = 1.0 if z is None else z[b, e, t] / (1.0 + math.exp(-z[b, e, t]))
        y[b, e, t] = total * gate
    return y, h


@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [
        ("reference", torch.float64, 1e-12),
        ("portable", torch.float64, 1e-12),
        pytest.param("cpu", torch.float32, 1e-5, marks=needs_library),
    ],
)
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("given", ["", "D", "z", "delta_bias", "initial_state", "delta_softplus", "all"])
def test_equals_mamba_in_numpy(backend: str, dtype: torch.dtype, tolerance: float, groups: int, given: str) -> None:
    """Groups and every optional argument, alone and together."""
    draw = problems.sequence(11, groups=groups, states=3, softplus=given in ("delta_softplus", "all"), dtype=dtype)
    choices = {
        "D": draw.D,
        "z": torch.cos(torch.arange(draw.u.numel(), dtype=dtype)).view_as(draw.u) * 3,
        "delta_bias": torch.linspace(0.1, 0.9, 6, dtype=dtype),
        "initial_state": draw.initial_state,
        "delta_softplus": True,
    }
    options = choices if given == "all" else {name: choices[name] for name in choices if name == given}
    y, last = selective_scan(*draw[:5], **options, return_last_state=True, backend=backend)  # type: ignore[arg-type]

    def array(value: Any) -> Any:
        return value.double().numpy() if isinstance(value, torch.Tensor) else value

    want = mamba_in_numpy(*map(array, draw[:5]), **{name: array(value) for name, value in options.items()})
    assert problems.error(y, torch.from_numpy(want[0])) <= tolerance
    assert problems.error(last, torch.from_numpy(want[1])) <= tolerance


@pytest.fixture
def deterministic() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    with problems.determinism():
        yield
    torch.set_num_threads(threads)


@CPU_BACKENDS
def test_two_deterministic_runs_are_equal(backend: str, deterministic: None) -> None:
    """Of both operators, forward and backward, to the last bit, on problems large enough for several threads."""
    inputs = leaves(problems.directional((5, 33), batch=2, channels=40, states=16, dtype=torch.float32))
    series = problems.sequence(200, channels=36, states=16, dtype=torch.float32)
    u, delta, A, B, C, D, bias, state = tensors = [t.requires_grad_() for t in series[:-1] if t is not None]

    def run() -> list[torch.Tensor]:
        y = directional_scan(*inputs, backend=backend)
        first = torch.autograd.grad(y, inputs[:-1], torch.linspace(-1, 1, y.numel()).view_as(y))
        out, last = selective_scan(u, delta, A, B, C, D, None, bias, True, True, state, backend=backend)
        second = torch.autograd.grad((out.sin().sum() + last.square().sum()), tensors)
        return [y, *first, out, last, *second]

    for a, b in zip(run(), run(), strict=True):
        assert torch.equal(a, b)  # NaN, where memory was not written, differs from itself


def test_nothing_is_saved_without_gradients() -> None:
    inputs = problems.directional((4, 5), dtype=torch.float32)
    with torch.inference_mode():
        y = directional_scan(*inputs, backend="portable")
    assert not y.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i._replace(u=i.u[0]), r"u has 2 axes"),
        (lambda i: i._replace(B=i.B[..., :-1]), r"B has shape \(1, 20, 4, 3\), expected \(1, 20, 4, 4\)"),
        (lambda i: i._replace(order=i.order[:2]), r"order has shape \(2, 20\)"),
        (lambda i: i._replace(order=i.order.int()), r"order has dtype torch.int32"),
        (lambda i: i._replace(order=i.order.to("meta")), r"order is on meta, u on cpu"),
        (lambda i: i._replace(A=i.A.to(torch.complex64)), r"A has dtype torch.complex64"),
        (
            lambda i: i._replace(u=i.u[:, :0], dt=i.dt[:, :0], B=i.B[:, :0], C=i.C[:, :0], order=i.order[:, :0]),
            "empty",
        ),
    ],
)
def test_wrong_arguments_are_named(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        directional_scan(*change(problems.directional((4, 5))))


def test_strides_are_the_order_said_otherwise() -> None:
    inputs = problems.directional((4, 5))
    y = directional_scan(*inputs, strides=strides("cross", (4, 5)), backend="portable")
    assert torch.equal(y, directional_scan(*inputs, backend="portable"))
    with pytest.raises(ConfigError, match="give the 4 directions of order"):
        directional_scan(*inputs, strides=strides("bidirectional", (4, 5)))
    with pytest.raises(ConfigError, match=r"a direction of \(4, 4\) steps over 20 pixels"):
        directional_scan(*inputs, strides=strides("cross", (4, 4)))


def test_groups_must_divide_channels() -> None:
    inputs = problems.sequence(4, channels=6, groups=4, optional=False)
    with pytest.raises(ConfigError, match="6 channels cannot be divided into 4 groups"):
        selective_scan(*inputs[:5])
