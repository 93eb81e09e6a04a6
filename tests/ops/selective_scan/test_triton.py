"""The Triton backend against the reference in float64: in Triton's interpreter on CPUs, compiled on GPUs.

Triton decides when it is imported whether it interprets, so the interpreter runs this file again in a process of
its own, on problems of a few steps. With a GPU the same tests run compiled, and larger ones marked ``gpu`` too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from medmamba_monai.ops import directional_scan, strides
from medmamba_monai.ops.selective_scan import dispatch, portable, reference
from medmamba_monai.ops.selective_scan import triton as backend
from medmamba_monai.ops.selective_scan.contract import DirectionalInputs, SequenceInputs
from medmamba_monai.ops.selective_scan.functional import flatten_strides
from medmamba_monai.ops.selective_scan.kernels import plan

from . import interpreter, problems
from .interpreter import INTERPRETED

triton = pytest.importorskip("triton", reason="the package triton is not installed")

TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a CUDA device")


@pytest.fixture
def device() -> str:
    return interpreter.device()


def test_in_the_interpreter() -> None:
    interpreter.run_in_the_interpreter(__file__, "not slow and not gpu")


@pytest.mark.slow
def test_in_the_interpreter_at_length() -> None:
    interpreter.run_in_the_interpreter(__file__, "slow and not gpu")


def noise(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)


def place(inputs: DirectionalInputs, device: str) -> DirectionalInputs:
    return DirectionalInputs(*(t.to(device) for t in inputs))


def directional_errors(inputs: DirectionalInputs, device: str) -> dict[str, float]:
    """Errors of y and of all gradients, on the inputs as they are rounded."""
    truth = problems.to(inputs, torch.float64)
    here = place(inputs, device)
    y, saved = backend.directional_forward(here, True)
    assert y.dtype == inputs.u.dtype
    assert saved.shape == (backend.directional_saved_numel(here),)
    without, nothing = backend.directional_forward(here, False)
    assert torch.equal(without, y) and nothing.shape == (0,)
    grad = noise(inputs.u, 1)
    grads = backend.directional_backward(grad.to(device), here, saved)
    expected = reference.directional_backward(grad.double(), truth, saved)
    errors = {"y": problems.error(y.cpu(), reference.directional_scan(truth))}
    for name, a, b in zip(inputs._fields, grads, expected, strict=False):
        assert a.dtype == getattr(inputs, name).dtype and a.is_contiguous()
        errors[name] = problems.error(a.cpu(), b)
    return errors


def check_directional(inputs: DirectionalInputs, device: str) -> None:
    tolerance = TOLERANCES[inputs.u.dtype]
    errors = directional_errors(inputs, device)
    assert all(error <= tolerance for error in errors.values()), errors


def cast_sequence(inputs: SequenceInputs, dtype: torch.dtype, device: str = "cpu") -> SequenceInputs:
    tensors = (None if t is None else t.to(device, dtype) for t in inputs[:-1])
    return SequenceInputs(*tensors, softplus=inputs.softplus)  # type: ignore[arg-type]


def check_sequence(inputs: SequenceInputs, device: str, dtype: torch.dtype = torch.float32) -> None:
    here = cast_sequence(inputs, dtype, device)
    truth = cast_sequence(cast_sequence(inputs, dtype), torch.float64)
    y, last, saved = backend.sequence_forward(here, True)
    assert y.dtype == dtype and last.dtype == torch.float32
    assert saved.shape == (backend.sequence_saved_numel(here),)
    expected_y, expected_last = reference.sequence_scan(truth)
    grad, grad_last = noise(y.cpu(), 1), noise(last.cpu(), 2)
    grads = backend.sequence_backward(grad.to(device), grad_last.to(device), here, saved)
    expected = reference.sequence_backward(grad.double(), grad_last.double(), truth, saved)
    errors = {"y": problems.error(y.cpu(), expected_y), "last": problems.error(last.cpu(), expected_last)}
    for name, a, b in zip(inputs._fields, grads, expected, strict=False):
        assert (a is None) == (b is None), name
        if a is not None and b is not None:
            assert a.dtype == dtype
            errors[name] = problems.error(a.cpu(), b)
    assert all(error <= TOLERANCES[dtype] for error in errors.values()), errors


@pytest.fixture
def short_spans(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """States saved every 4 steps and spans of 4 steps or more, so that few steps do what thousands would."""
    from medmamba_monai.ops.selective_scan.kernels import launch

    monkeypatch.setattr(plan, "INTERVAL", 4)
    monkeypatch.setattr(launch, "INTERVAL", 4)
    monkeypatch.setattr(plan, "_MIN_SPAN", 4)
    monkeypatch.setattr(plan, "_MIN_SPANS", 2)


@pytest.mark.parametrize(
    ("spatial", "options"),
    [
        ((1, 1), {"scan": "raster", "channels": 3, "states": 1, "rank": 1}),
        ((2, 3), {"channels": 8, "states": 8, "rank": 3}),
        ((5, 2), {"scan": "bidirectional", "batch": 2, "channels": 5, "states": 3}),
        ((2, 1, 2), {"channels": 4, "states": 16}),
        ((1, 4), {"scan": "bidirectional", "channels": 41, "states": 5, "rank": 4}),
        ((3, 2), {"scan": "zigzag", "channels": 1, "states": 2}),
    ],
    ids=str,
)
def test_equals_the_reference(spatial: tuple[int, ...], options: dict[str, object], device: str) -> None:
    check_directional(problems.directional(spatial, dtype=torch.float32, **options), device)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spatial", "scan"),
    [
        ((1, 8), "bidirectional"),  # lines of whole groups of steps
        ((3, 3), "raster"),  # lines that end within a group
        pytest.param((4, 4), "cross", marks=pytest.mark.slow),
        pytest.param((3, 5), "cross", marks=pytest.mark.slow),
        pytest.param((2, 2, 4), "bidirectional", marks=pytest.mark.slow),
        pytest.param((2, 3, 2), "cross", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_strides_and_table_say_the_same(
    spatial: tuple[int, ...], scan: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits, in one span and in several, where every step's pixel is computed and where it is read."""
    inputs = problems.directional(spatial, channels=3, states=2, scan=scan, dtype=torch.float32)
    ways = strides(scan, spatial) or []
    walk = flatten_strides(ways, inputs.order)
    here = place(inputs, device)
    grad = noise(inputs.u, 1).to(device)
    for spans in (1, 2):
        if spans == 2:
            monkeypatch.setattr(plan, "_MIN_SPAN", 4)
            monkeypatch.setattr(plan, "_MIN_SPANS", 2)
        y, saved = backend.directional_forward(here, True, walk)
        expected, same = backend.directional_forward(here, True)
        assert torch.equal(y, expected) and torch.equal(saved, same)
        grads = backend.directional_backward(grad, here, saved, walk)
        for a, b in zip(grads, backend.directional_backward(grad, here, saved), strict=True):
            assert torch.equal(a, b)
        turned = [
            d._replace(start=inputs.order.shape[1] - 1 - d.start, steps=tuple(-step for step in d.steps)) for d in ways
        ]
        other = backend.directional_forward(here, False, flatten_strides(turned[:1] + ways[1:], inputs.order))[0]
        assert not torch.equal(other, expected)  # a wrong way is seen


@pytest.mark.slow
@pytest.mark.parametrize("spatial", [(6, 6), (3, 4, 5), (1, 64)], ids=str)
def test_equals_the_reference_at_length(spatial: tuple[int, ...], device: str) -> None:
    """More steps than lie between two saved states."""
    check_directional(problems.directional(spatial, channels=32, states=16, dtype=torch.float32), device)


@pytest.mark.slow
@pytest.mark.parametrize("scan", ["cross", "raster", "bidirectional", "zigzag", "diagonal", "hilbert"])
def test_every_scan(scan: str, device: str) -> None:
    check_directional(problems.directional((4, 3), scan=scan, dtype=torch.float32), device)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype: torch.dtype, device: str) -> None:
    check_directional(problems.directional((2, 3), channels=8, states=8, dtype=dtype), device)


def test_autocast_mixes_precisions(device: str) -> None:
    """Activations in bfloat16, parameters in float32, as autocast calls it."""
    inputs = problems.directional((2, 3), channels=8, dtype=torch.float32)
    lower = {name: getattr(inputs, name).bfloat16() for name in ("u", "dt", "B", "C")}
    inputs = inputs._replace(**lower)
    errors = directional_errors(inputs, device)
    assert max(errors.values()) <= 1e-2, errors


def test_spans_and_saved_states(short_spans: None, device: str) -> None:
    inputs = problems.directional((3, 5), scan="bidirectional", channels=5, states=3, dtype=torch.float32)
    assert plan.make_plan(2, 15, 5, 3)[3:] == (8, 2, 4)  # two spans, the last a step shorter
    check_directional(inputs, device)


def test_saved_states_in_one_span(short_spans: None, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_MIN_SPANS", 1000)
    inputs = problems.directional((1, 11), scan="bidirectional", channels=5, states=3, dtype=torch.float32)
    assert plan.make_plan(2, 11, 5, 3)[3:] == (11, 1, 3)
    check_directional(inputs, device)


def test_sequence_in_spans(short_spans: None, device: str) -> None:
    check_sequence(problems.sequence(9, batch=1), device)
    check_sequence(problems.sequence(8, batch=1, groups=1, optional=False), device)


@pytest.mark.parametrize(
    "options",
    [
        {"length": 5},
        {"length": 6, "groups": 1, "channels": 3, "states": 1, "optional": False, "softplus": False},
        {"length": 3, "groups": 3, "channels": 3, "states": 2, "batch": 1},
    ],
    ids=str,
)
def test_sequence_equals_the_reference(options: dict[str, object], device: str) -> None:
    check_sequence(problems.sequence(**options), device)  # type: ignore[arg-type]


def test_sequence_in_bfloat16(device: str) -> None:
    check_sequence(problems.sequence(4), device, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("step_scale", [0.01, 50.0])
def test_extreme_steps(step_scale: float, dtype: torch.dtype, device: str) -> None:
    """Decays that underflow to zero or stay near one, steps of exp(-50)."""
    inputs = problems.directional((2, 3), channels=8, dtype=torch.float32, step_scale=step_scale)
    lower = {name: getattr(inputs, name).to(dtype) for name in ("u", "dt", "B", "C")}
    check_directional(inputs._replace(**lower), device)


def test_tiny_steps_keep_their_digits(device: str) -> None:
    """A bias as at initialisation, softplus(-7) = 0.0009: log1p and expm1 where log and exp would cancel."""
    inputs = problems.directional((2, 3), channels=8, dtype=torch.float32, step_scale=0.1)
    check_directional(inputs._replace(dt_bias=torch.full_like(inputs.dt_bias, -7.0)), device)


def test_strided_inputs(device: str) -> None:
    """Slices of one projection, a transposed map, an expanded gradient."""
    inputs = problems.directional((1, 4), channels=6, states=4, rank=2, scan="bidirectional", dtype=torch.float32)
    together = torch.cat([inputs.dt, inputs.B, inputs.C], dim=-1)
    dt, B, C = together.split([2, 4, 4], dim=-1)
    u = inputs.u.transpose(1, 2).contiguous().transpose(1, 2)
    assert not u.is_contiguous() and not B.is_contiguous()
    strided = place(inputs._replace(u=u, dt=dt, B=B, C=C), device)
    dense = place(inputs, device)
    y, saved = backend.directional_forward(strided, True)
    assert torch.equal(y, backend.directional_forward(dense, False)[0])
    grad = torch.ones((), device=device).expand_as(y)
    grads = backend.directional_backward(grad, strided, saved)
    for a, b in zip(grads, backend.directional_backward(grad.contiguous(), dense, saved), strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory is full of NaN: whatever is read before it is written shows."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield  # type: ignore[misc]
    torch.use_deterministic_algorithms(False)


def test_buffers_full_of_nan(poisoned: None, short_spans: None, device: str) -> None:
    assert torch.empty(3).isnan().all()
    check_directional(
        problems.directional((1, 7), scan="bidirectional", channels=5, states=3, dtype=torch.float32), device
    )
    check_sequence(problems.sequence(7, batch=1, channels=3, groups=1, states=3), device)


def test_twice_the_same_bits(device: str) -> None:
    inputs = place(problems.directional((1, 3), batch=2, scan="bidirectional", dtype=torch.float32), device)
    grad = noise(inputs.u.cpu(), 1).to(device)
    runs = []
    for _ in range(2):
        y, saved = backend.directional_forward(inputs, True)
        runs.append([y, *backend.directional_backward(grad, inputs, saved)])
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a, b)


def test_double_precision_takes_the_portable_path(device: str) -> None:
    inputs = place(problems.directional((2, 3)), device)
    y, saved = backend.directional_forward(inputs, True)
    assert torch.equal(y, portable.directional_forward(inputs, True)[0])
    assert saved.numel() == backend.directional_saved_numel(inputs)


def test_planted_errors_are_seen(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the suite measures moves when the kernels' work is spoilt."""
    from medmamba_monai.ops.selective_scan.kernels import launch

    inputs = problems.directional((2, 3), channels=8, dtype=torch.float32)
    here = place(inputs, device)
    y, saved = backend.directional_forward(here, True)
    grad = noise(inputs.u, 1).to(device)
    right = backend.directional_backward(grad, here, saved)
    wrong = backend.directional_backward(grad, here, saved + 1)  # the saved states matter
    moved = {name for name, a, b in zip(inputs._fields, right, wrong, strict=False) if problems.error(b, a) > 1e-2}
    assert {"dt", "A", "C", "dt_weight", "dt_bias"} <= moved
    turned = here._replace(order=here.order.flip(1).contiguous())
    assert problems.error(backend.directional_forward(turned, False)[0], y) > 1e-2
    merge = launch.merge
    monkeypatch.setattr(launch, "merge", lambda parts, dtype: merge(parts, dtype) * 1.001)
    reason = backend.self_test()
    assert reason is not None and "y differs from the reference by 1.0e-03" in reason


def test_self_test_catches_a_wrong_plain_scan(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels whose directional scan is right may still fail at what only the plain scan has: here the first state."""
    sequence = backend._sequence

    def wrong(inputs: SequenceInputs) -> object:
        state = inputs.initial_state
        return sequence(inputs._replace(initial_state=None if state is None else state * 1.01))

    monkeypatch.setattr(backend, "_sequence", wrong)
    assert "kernels are wrong on this machine: in the plain scan y differs" in str(backend.self_test())


def test_self_test_allows_products_in_tf32(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller may have allowed it for PyTorch's products, of which the backward has two; the kernels are right."""
    backward = backend.directional_backward

    def rounded(*arguments: Any, **options: Any) -> list[Tensor]:
        grads = dict(zip(DirectionalInputs._fields, backward(*arguments, **options), strict=False))
        for name in ("dt", "dt_weight"):
            grads[name] = (grads[name].view(torch.int32) & ~0x1FFF).view(torch.float32)  # ten bits of the fraction
        return list(grads.values())

    monkeypatch.setattr(backend, "directional_backward", rounded)
    assert backend.self_test() is None


def test_self_test_says_why_kernels_do_not_run(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from medmamba_monai.ops.selective_scan.kernels import launch

    def no_compiler(*arguments: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(launch, "expand", no_compiler)
    assert backend.self_test() == "its kernels do not run on this machine: RuntimeError: Failed to find C compiler"


def test_self_test_passes(device: str) -> None:
    assert backend.self_test() is None


@pytest.mark.slow
def test_as_an_operator(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through torch.library: what fake tensors are promised, autograd, and a graph without breaks."""
    monkeypatch.setitem(dispatch.BACKENDS, "triton", "Triton kernels")
    dispatch.unavailable.cache_clear()
    inputs = place(problems.directional((1, 3), dtype=torch.float32), device)
    leaves = [t.clone().requires_grad_() for t in inputs[:-1]]
    torch.library.opcheck(torch.ops.medmamba.directional_scan.default, (*leaves, inputs.order, [], "triton", True))
    series = cast_sequence(problems.sequence(3, batch=1), torch.float32, device)
    tensors = [t.clone().requires_grad_() for t in series[:-1]]  # type: ignore[union-attr]
    torch.library.opcheck(torch.ops.medmamba.selective_scan.default, (*tensors, True, "triton", True))

    def loss(*tensors: Tensor) -> Tensor:
        return directional_scan(*tensors, backend="triton").square().sum()

    eager = torch.autograd.grad(loss(*leaves, inputs.order), leaves)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for a, b in zip(torch.autograd.grad(compiled(*leaves, inputs.order), leaves), eager, strict=True):
        assert torch.equal(a, b)


def test_reasons_for_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert backend.unavailable(torch.device("cpu")) == "it runs on GPUs (cuda, xpu), not on cpu"
    assert backend.unavailable(torch.device("mps")) == "it runs on GPUs (cuda, xpu), not on mps"
    assert backend.unavailable(torch.device("cuda")) is None
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend.unavailable(torch.device("cpu")) is None
    monkeypatch.setattr(backend, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None)))
    assert "pip install 'medmamba_monai[triton]'" in str(backend.unavailable(torch.device("cuda")))


@pytest.mark.skipif(INTERPRETED, reason="tested in the other process")
def test_importing_the_backend_does_not_import_triton() -> None:
    code = "import sys; import medmamba_monai.ops.selective_scan.triton; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("spatial", "batch", "channels", "rank"),
    [((56, 56), 2, 96, 3), ((28, 28), 2, 192, 6), ((14, 14), 8, 384, 12), ((7, 7), 8, 768, 24), ((13, 9, 5), 1, 40, 2)],
    ids=str,
)
def test_stages_on_a_gpu(spatial: tuple[int, ...], batch: int, channels: int, rank: int, dtype: torch.dtype) -> None:
    inputs = problems.directional(spatial, batch=batch, channels=channels, rank=rank, states=16, dtype=torch.float32)
    lower = {name: getattr(inputs, name).to(dtype) for name in ("u", "dt", "B", "C")}
    inputs = inputs._replace(**lower)
    exact = place(problems.to(inputs, torch.float64), "cuda")
    here = place(inputs, "cuda")
    y, saved = backend.directional_forward(here, True)
    grad = noise(inputs.u, 1).cuda()
    grads = backend.directional_backward(grad, here, saved)
    expected_y, starts = portable.directional_forward(exact, True)
    expected = portable.directional_backward(grad.double(), exact, starts)
    errors = {"y": problems.error(y, expected_y)}
    errors |= {n: problems.error(a, b) for n, a, b in zip(inputs._fields, grads, expected, strict=False)}
    assert all(error <= TOLERANCES[dtype] for error in errors.values()), errors


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("side", [28, 112])
def test_long_sequences_on_a_gpu(side: int) -> None:
    inputs = problems.directional((side, side), channels=32, states=16, dtype=torch.float32)
    exact = place(problems.to(inputs, torch.float64), "cuda")
    y, _ = backend.directional_forward(place(inputs, "cuda"), False)
    assert problems.error(y, portable.directional_forward(exact, False)[0]) <= 1e-5


@pytest.mark.gpu
@needs_gpu
def test_captured_in_a_cuda_graph() -> None:
    inputs = place(problems.directional((14, 14), channels=64, states=16, dtype=torch.float32), "cuda")
    expected = backend.directional_forward(inputs, False)[0]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y, _ = backend.directional_forward(inputs, False)
    inputs.u.mul_(2)
    graph.replay()
    torch.cuda.synchronize()
    assert problems.error(y, 2 * expected) <= 1e-5
