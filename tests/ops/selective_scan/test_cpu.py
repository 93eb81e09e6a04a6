"""The C kernel against the reference in float64: every instruction set that runs here, every gradient, hard cases."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medmamba_monai.errors import BackendError, ConfigError
from medmamba_monai.ops import directional_scan
from medmamba_monai.ops.selective_scan import cpu, portable, reference
from medmamba_monai.ops.selective_scan.contract import DirectionalInputs, SequenceInputs

from . import problems

MISSING = cpu.unavailable(torch.device("cpu"))
VARIANTS = () if MISSING else cpu.variants()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"scan backend cpu: {MISSING}")
TOLERANCE = 1e-5
APART = 2**30 + 16  # numbers between rows of a map full of holes: three times that is beyond 32 bits


@pytest.fixture(params=VARIANTS)
def simd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(cpu.SIMD_VARIABLE, request.param)
    assert cpu.variant() == request.param
    return str(request.param)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every buffer the kernel is given starts as NaN: an element it forgets to write shows."""
    monkeypatch.setattr(cpu, "empty", lambda shape: torch.full(tuple(shape), torch.nan))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def gradient_like(y: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))


def run(inputs: DirectionalInputs) -> list[Tensor]:
    y, saved = cpu.directional_forward(inputs, True)
    assert saved.numel() == cpu.directional_saved_numel(inputs)
    return [y, *cpu.directional_backward(gradient_like(y).to(y.dtype), inputs, saved)]


def truth(inputs: DirectionalInputs) -> list[Tensor]:
    exact = problems.to(inputs, torch.float64)
    y = reference.directional_scan(exact)
    grad = gradient_like(y).to(inputs.u.dtype).double()
    return [y, *reference.directional_backward(grad, exact, y.new_empty(0))]


def run_sequence(inputs: SequenceInputs) -> list[Tensor | None]:
    y, last, saved = cpu.sequence_forward(inputs, True)
    assert saved.numel() == cpu.sequence_saved_numel(inputs)
    grads = cpu.sequence_backward(gradient_like(y).to(y.dtype), gradient_like(last, 2), inputs, saved)
    return [y, last, *grads]


def truth_sequence(inputs: SequenceInputs) -> list[Tensor | None]:
    exact = SequenceInputs(*(t if t is None else t.double() for t in inputs[:-1]), softplus=inputs.softplus)
    y, last = reference.sequence_scan(exact)
    grads = (gradient_like(y).to(inputs.u.dtype).double(), gradient_like(last, 2).double())
    return [y, last, *reference.sequence_backward(*grads, exact, y.new_empty(0))]


def check(got: list[Tensor | None], want: list[Tensor | None], tolerance: float = TOLERANCE) -> None:
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert problems.error(a, b) <= tolerance, f"result {index} (0 is y, then the gradients in order)"


@pytest.mark.parametrize(("spatial", "batch"), [((1, 1), 1), ((5, 7), 3), ((9, 11), 1), ((3, 4, 5), 2), ((1, 33), 1)])
@pytest.mark.parametrize(("states", "channels", "rank"), [(1, 8, 1), (5, 19, 3), (8, 16, 2), (16, 50, 6)])
def test_equals_the_reference(
    simd: str, poisoned: None, spatial: tuple[int, ...], batch: int, states: int, channels: int, rank: int
) -> None:
    inputs = problems.directional(
        spatial, batch=batch, channels=channels, rank=rank, states=states, dtype=torch.float32
    )
    check(run(inputs), truth(inputs))


@pytest.mark.parametrize("channels", [1, 7, 31, 33, 100])
def test_every_number_of_channels(simd: str, poisoned: None, channels: int) -> None:
    """Ragged vectors, and the backward pass in one, two and four chunks of channels."""
    inputs = problems.directional((6, 7), channels=channels, states=4, dtype=torch.float32)
    check(run(inputs), truth(inputs))


@pytest.mark.parametrize("batch", [9, 40])
def test_batches_share_the_parameters(poisoned: None, batch: int) -> None:
    inputs = problems.directional((3, 4), batch=batch, channels=12, dtype=torch.float32)
    check(run(inputs), truth(inputs))


@pytest.mark.parametrize("step_scale", [1e-3, 30.0, 300.0])
def test_extreme_steps(simd: str, step_scale: float) -> None:
    """Steps from exp(-300) to several hundred: decays of 0 and of 1, softplus in both its limits."""
    inputs = problems.directional((8, 9), channels=9, states=16, dtype=torch.float32, step_scale=step_scale)
    check(run(inputs), truth(inputs))


def test_tiny_steps_remember_everything(simd: str) -> None:
    """Steps of about 1e-6 over 400 pixels: an error of the exponential near 1 would add up."""
    inputs = problems.directional((20, 20), channels=8, states=16, scan="raster", dtype=torch.float32)
    inputs = inputs._replace(dt_bias=torch.full_like(inputs.dt_bias, -14.0), dt=inputs.dt * 0.1)
    check(run(inputs), truth(inputs))


@pytest.mark.parametrize("move", [1e-4, 2e-3, 8e-3, 2e-2, 4e-2])
@pytest.mark.parametrize("states", [16, 7, 1])
def test_steps_that_hardly_change(simd: str, poisoned: None, states: int, move: float) -> None:
    """Sizes near the middle of their block, with decays by polynomials of either degree, beside others by exponentials.

    Without D, which would drown an error of the states.
    """
    inputs = problems.directional((9, 15), 2, channels=19, states=states, dtype=torch.float32, step_scale=move)
    inputs = inputs._replace(A=inputs.A * 4, D=torch.zeros_like(inputs.D))
    check(run(inputs), truth(inputs), 3e-6)


@pytest.mark.parametrize("bias", [-7.0, -3.0, 4.0])
def test_one_step_that_changes_much(simd: str, bias: float) -> None:
    """One pixel whose step sizes differ ends the steadiness of its block, not of the others."""
    inputs = problems.directional((10, 20), channels=8, states=16, dtype=torch.float32, step_scale=3e-3)
    dt, u = inputs.dt.clone(), inputs.u.clone()
    dt[:, 77], u[:, 77] = 3.0, 20.0
    inputs = inputs._replace(dt=dt, u=u, dt_bias=torch.full_like(inputs.dt_bias, bias), D=torch.zeros_like(inputs.D))
    check(run(inputs), truth(inputs), 3e-6)


@pytest.mark.parametrize("x0", [-9.0, -2.0, 0.0, 3.0])
@pytest.mark.parametrize("reach", [1e-5, 0.0124, 0.0126, 0.059, 0.061])
def test_steady_decays_up_to_their_limits(simd: str, reach: float, x0: float) -> None:
    """A state that only decays shows each decay; `reach` is the largest |A (delta - middle)|, limits of csrc/steady.h.

    The step sizes are right to some 1e-7 of themselves, so a decay is to that times |A delta|, and to rounding.
    """
    x = x0 + 0.0495 * torch.linspace(-1, 1, 11, dtype=torch.float64).repeat(2).float()
    delta = torch.nn.functional.softplus(x.double())
    A = -2 * reach / (delta.max() - delta.min()).item()
    zeros = torch.zeros(1, 1, 1, len(x))
    inputs = SequenceInputs(
        u=torch.zeros(1, 8, len(x)), delta=x.expand(1, 8, -1).contiguous(), A=torch.full((8, 1), A), B=zeros,
        C=zeros + 1, D=None, delta_bias=None, initial_state=torch.ones(1, 8, 1), softplus=True,
    )  # fmt: skip
    h = cpu.sequence_forward(inputs, False)[0].double()
    decay = h / torch.cat([torch.ones(1, 8, 1), h[..., :-1]], -1)
    want = torch.exp(inputs.A[0].double() * delta)
    assert ((decay / want - 1).abs() <= 4e-7 + 4e-7 * (A * delta).abs()).all()


@pytest.mark.parametrize(("size", "bound"), [(1e-4, 6e-6), (1e-3, 4.5e-6), (1e-2, 3e-6)])
def test_steady_steps_remember_long(simd: str, size: float, bound: float) -> None:
    """Thousands of steps: the rounding of a block's decays must not add up. Inputs of one sign; bounds of each channel.

    The loop in float32 is 3.5e-6, 2.4e-6 and 0.9e-6 off.
    """
    length, channels = 6400, 16
    generator = torch.Generator().manual_seed(0)

    def about_one(*shape: int) -> Tensor:
        return 1 + 0.1 * torch.randn(*shape, generator=generator)

    x = torch.log(torch.expm1(size * torch.logspace(0, 1, channels, dtype=torch.float64)))
    move = 0.045 * torch.rand(1, channels, length, generator=generator) * 2 - 0.045
    inputs = SequenceInputs(
        u=about_one(1, channels, length), delta=(x.float()[None, :, None] + move), A=-torch.ones(channels, 1),
        B=about_one(1, 1, 1, length), C=about_one(1, 1, 1, length), D=None, delta_bias=None, initial_state=None,
        softplus=True,
    )  # fmt: skip
    exact = SequenceInputs(*(t if t is None else t.double() for t in inputs[:-1]), softplus=True)
    want = reference.sequence_scan(exact)
    got = cpu.sequence_forward(inputs, True)
    grads = about_one(1, channels, length), about_one(1, channels, 1)
    g_u = cpu.sequence_backward(*grads, inputs, got[2])[0]
    want_g_u = reference.sequence_backward(grads[0].double(), grads[1].double(), exact, want[0].new_empty(0))[0]
    for a, b in ((got[0], want[0]), (g_u, want_g_u)):
        error = (a - b).abs().amax((0, 2))
        assert (error / b.abs().amax((0, 2))).max() <= bound


def test_what_came_before_nan_is_right(simd: str) -> None:
    """Whether steps are steady is judged by all of them, also those before one that is NaN."""
    x = torch.cat([torch.linspace(-6, 6, 20), torch.zeros(30)])
    x[30] = torch.nan
    zeros = torch.zeros(1, 1, 1, 50)
    inputs = SequenceInputs(
        u=torch.ones(1, 8, 50), delta=x.expand(1, 8, -1).contiguous(), A=-torch.ones(8, 1), B=zeros + 1, C=zeros + 1,
        D=None, delta_bias=None, initial_state=None, softplus=True,
    )  # fmt: skip
    exact = SequenceInputs(*(t if t is None else t.double() for t in inputs[:-1]), softplus=True)
    got, want = cpu.sequence_forward(inputs, False)[0], reference.sequence_scan(exact)[0]
    torch.testing.assert_close(got[..., :30].double(), want[..., :30], rtol=1e-5, atol=1e-6)
    assert got[..., 30:].isnan().all()


@pytest.mark.parametrize("A", [-400.0, -70.0, 0.0, 0.02, 40.0])
def test_steady_steps_of_every_rate(simd: str, A: float) -> None:
    """Decays of 0 and of 1, and states that grow, where steps are steady."""
    inputs = problems.directional((3, 4), channels=9, states=2, scan="raster", dtype=torch.float32, step_scale=1e-4)
    inputs = inputs._replace(A=torch.full_like(inputs.A, A), dt_bias=torch.zeros_like(inputs.dt_bias))
    y, _ = cpu.directional_forward(inputs, False)
    want = reference.directional_scan(problems.to(inputs, torch.float64))
    finite = (want.abs() < 1e37).all(dim=(0, 2))
    assert finite.sum() >= 2
    torch.testing.assert_close(y[:, finite].double(), want[:, finite], rtol=1e-4, atol=2e-6)


def test_small_and_large_steps_are_exact_in_themselves(simd: str) -> None:
    """softplus over its whole range: the error is relative to each result, down to 1e-26, not to the largest."""
    x = torch.linspace(-60, 60, 4001)
    ones = torch.ones(1, 1, 1, 1).expand(1, 1, 1, 4001)
    inputs = SequenceInputs(
        u=torch.ones(1, 4001, 1), delta=x.view(1, -1, 1), A=-torch.ones(4001, 1), B=ones[..., :1], C=ones[..., :1],
        D=None, delta_bias=None, initial_state=None, softplus=True,
    )  # fmt: skip
    y, last, _ = cpu.sequence_forward(inputs, False)
    expected = torch.nn.functional.softplus(x.double())
    torch.testing.assert_close(y.flatten().double(), expected, rtol=5e-6, atol=0)
    torch.testing.assert_close(last.flatten().double(), expected, rtol=5e-6, atol=0)


@pytest.mark.parametrize("A", [-100.0, -20.0, -1e-4, 0.0, 0.5, 60.0])
def test_the_exponential_over_its_range(simd: str, A: float) -> None:
    """One step from a known state gives exp(delta A) itself; beyond float32 it is 0 or infinite."""
    delta = torch.linspace(0, 3, 999).view(1, -1, 1)
    zeros = torch.zeros(1, 1, 1, 1)
    inputs = SequenceInputs(
        u=torch.zeros(1, 999, 1), delta=delta, A=torch.full((999, 1), A), B=zeros, C=zeros + 1, D=None,
        delta_bias=None, initial_state=torch.ones(1, 999, 1), softplus=False,
    )  # fmt: skip
    y = cpu.sequence_forward(inputs, False)[0].flatten().double()
    expected = torch.exp(delta.flatten().double() * A)
    representable = (expected < 3e38) & (expected > 1e-37)
    torch.testing.assert_close(y[representable], expected[representable], rtol=3e-5 if abs(A) > 20 else 5e-6, atol=0)
    assert (y[expected > 4e38] == torch.inf).all()
    assert (y[expected < 1e-38] <= 2e-38).all()


def test_long_sequence(simd: str) -> None:
    """112 x 112 pixels, in the order of columns too: all results, against the float64 loop."""
    inputs = problems.directional((112, 112), channels=3, rank=1, states=2, scan="bidirectional", dtype=torch.float32)
    inputs = inputs._replace(order=torch.stack([inputs.order[0], inputs.order[1].view(112, 112).T.flatten()]))
    y, _ = cpu.directional_forward(inputs, False)
    assert problems.error(y, reference.directional_scan(problems.to(inputs, torch.float64))) <= TOLERANCE


@pytest.mark.slow
def test_long_sequence_with_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """112 x 112 pixels by columns, every gradient, on all instruction sets and on the portable path."""
    inputs = problems.directional((112, 112), channels=3, rank=1, states=2, scan="raster", dtype=torch.float32)
    inputs = inputs._replace(order=inputs.order.view(112, 112).T.reshape(1, -1))
    want = truth(inputs)
    for name in VARIANTS:
        monkeypatch.setenv(cpu.SIMD_VARIABLE, name)
        check(run(inputs), want)
    y, saved = portable.directional_forward(inputs, True)
    check([y, *portable.directional_backward(gradient_like(y), inputs, saved)], want)


def test_the_greatest_rate_is_counted(simd: str) -> None:
    """Twelve vectors a round on each thread."""
    width = {"portable": 4, "avx2": 8, "avx512": 16}[simd]
    assert cpu.multiply_adds(1000) == 12 * 1000 * width * torch.get_num_threads()


def test_non_contiguous_inputs(simd: str, poisoned: None) -> None:
    """Slices of one projection (the usual case), and tensors with every axis moved."""
    plain = problems.directional((6, 7), batch=2, channels=20, states=5, rank=3, dtype=torch.float32)
    want = truth(plain)
    dt, B, C = torch.cat([plain.dt, plain.B, plain.C], -1).split([3, 5, 5], -1)
    check(run(plain._replace(dt=dt, B=B, C=C)), want)
    moved = [t.movedim(-1, 0).contiguous().movedim(0, -1) for t in plain[:-1]]
    assert not moved[0].is_contiguous()
    check(run(DirectionalInputs(*moved, plain.order.T.contiguous().T)), want)
    spread = plain._replace(u=plain.u[:, :1].expand(-1, 42, -1))
    check(run(spread), truth(spread))


@pytest.fixture
def holes(tmp_path: Path) -> torch.UntypedStorage:
    """Some 13 GB of address space over a file of holes, of which only the pages written exist."""
    if sys.platform == "win32":
        pytest.skip("on Windows a file has holes only where it is made so: this one would take 13 GB of disk")
    try:
        return torch.UntypedStorage.from_file(str(tmp_path / "holes"), shared=True, nbytes=4 * (3 * APART + 1024))
    except RuntimeError as error:
        pytest.skip(f"a sparse file of 13 GB cannot be mapped here: {error}")


@pytest.mark.parametrize("axis", [0, 1, 2, -1], ids=["batch", "pixel", "direction", "last"])
def test_offsets_of_more_than_2_31_numbers(simd: str, holes: torch.UntypedStorage, axis: int) -> None:
    """Four of an axis, 2^30 numbers apart: offsets of 32 bits would read somewhere else. Forward and backward."""
    inputs = problems.directional((1, 4), batch=4, channels=4, rank=4, states=4, dtype=torch.float32)
    begin = 0

    def spread(tensor: Tensor) -> Tensor:
        nonlocal begin
        strides = list(torch.empty([1 if n == axis % tensor.dim() else 4 for n in range(tensor.dim())]).stride())
        strides[axis] = APART
        wide = torch.empty(0).set_(holes).as_strided(tensor.shape, strides, begin)
        begin += 64
        return wide.copy_(tensor)

    grad = gradient_like(inputs.u)
    wide = inputs._replace(**{name: spread(getattr(inputs, name)) for name in ("u", "dt", "B", "C")})
    assert (wide.u.shape[axis] - 1) * wide.u.stride(axis) > 2**31
    y, saved = cpu.directional_forward(wide, True)
    check([y, *cpu.directional_backward(spread(grad), wide, saved)], truth(inputs))


@contextmanager
def threads_of_our_own() -> Iterator[None]:
    library = cpu.library()
    library.medmamba_scan_use_team(None, None)
    try:
        yield
    finally:
        library.medmamba_scan_use_team(*cpu._team_entries())


@pytest.mark.parametrize("made", [nullcontext, threads_of_our_own, problems.team_of_python])
@pytest.mark.parametrize(("batch", "channels"), [(2, 70), (1, 20)])
def test_threads_change_nothing(
    simd: str, threads: None, made: Callable[[], AbstractContextManager[object]], batch: int, channels: int
) -> None:
    """On PyTorch's threads, on our own and on a team that cannot tell its members apart; with enough of them,
    directions are summed from parts."""
    inputs = problems.directional((9, 13), batch=batch, channels=channels, states=16, rank=4, dtype=torch.float32)
    torch.set_num_threads(1)
    alone = run(inputs)
    with made():
        for count in (2, 3, 16):
            torch.set_num_threads(count)
            for a, b in zip(run(inputs), alone, strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_number_of_threads_is_that_of_pytorch(threads: None, count: int) -> None:
    """No call asks for more or fewer; one thread is the caller's own."""
    torch.set_num_threads(count)
    scan = problems.directional((9, 13), batch=2, channels=70, states=16, rank=4, dtype=torch.float32)
    series = problems.sequence(200, channels=36, states=16, dtype=torch.float32)
    y, saved = cpu.directional_forward(scan, True)
    out, last, states = cpu.sequence_forward(series, True)
    calls: list[Callable[[], object]] = [
        lambda: cpu.directional_forward(scan, False),
        lambda: cpu.directional_backward(y, scan, saved),
        lambda: cpu.sequence_forward(series, False),
        lambda: cpu.sequence_backward(out, last, series, states),
        lambda: cpu.multiply_adds(10),
    ]
    for call in calls:
        with problems.team_of_python() as asked:
            call()
        assert set(asked) == ({count} if count > 1 else set())


def test_a_small_scan_is_not_worth_a_second_thread(threads: None) -> None:
    torch.set_num_threads(4)
    inputs = problems.directional((4, 5), dtype=torch.float32)
    with problems.team_of_python() as asked:
        run(inputs)
    assert asked == []


@pytest.mark.parametrize("step_scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("spatial", [(7, 5), (3, 4, 5)], ids=str)
def test_bfloat16(simd: str, poisoned: None, spatial: tuple[int, ...], step_scale: float) -> None:
    inputs = problems.directional(spatial, 2, channels=24, states=16, dtype=torch.bfloat16, step_scale=step_scale)
    got = run(inputs)
    assert [t.dtype for t in got] == [torch.bfloat16] * 9
    check(got, truth(inputs), 1e-2)


def test_half_precision_keeps_its_type() -> None:
    half = problems.to(problems.directional((7, 5), dtype=torch.float32), torch.float16)
    assert cpu.directional_forward(half, False)[0].dtype == torch.float16


@pytest.mark.parametrize("optional", [True, False])
def test_bfloat16_sequence(simd: str, poisoned: None, optional: bool) -> None:
    """The last state is float32, whatever the inputs."""
    inputs = problems.sequence(70, channels=24, groups=3, states=5, optional=optional, dtype=torch.bfloat16)
    got = run_sequence(inputs)
    expected = [torch.bfloat16, torch.float32, *(None if t is None else torch.bfloat16 for t in inputs[:-1])]
    assert [None if t is None else t.dtype for t in got] == expected
    check(got, truth_sequence(inputs), 1e-2)


def test_double_precision_is_kept() -> None:
    inputs = problems.directional((4, 5), dtype=torch.float64)
    y, saved = cpu.directional_forward(inputs, True)
    assert y.dtype == torch.float64
    assert problems.error(y, reference.directional_scan(inputs)) <= 1e-12
    assert saved.numel() == cpu.directional_saved_numel(inputs)


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize(("length", "channels", "groups", "states"), [(1, 6, 2, 4), (70, 24, 3, 5), (33, 40, 1, 16)])
def test_sequence_equals_the_reference(
    simd: str, poisoned: None, softplus: bool, optional: bool, length: int, channels: int, groups: int, states: int
) -> None:
    inputs = problems.sequence(
        length, channels=channels, groups=groups, states=states, optional=optional, softplus=softplus,
        dtype=torch.float32,
    )  # fmt: skip
    check(run_sequence(inputs), truth_sequence(inputs))


def test_sequence_of_strided_tensors(simd: str, poisoned: None) -> None:
    plain = problems.sequence(19, channels=20, dtype=torch.float32)
    moved = [t if t is None else t.movedim(0, -1).contiguous().movedim(-1, 0) for t in plain[:-1]]
    check(run_sequence(SequenceInputs(*moved, plain.softplus)), truth_sequence(plain))


@pytest.mark.parametrize("what", ["order", "D", "dt_bias", "B"])
def test_the_check_sees_a_planted_error(what: str) -> None:
    """The comparison above must fail when one part of the problem is changed."""
    inputs = problems.directional((5, 6), channels=8, dtype=torch.float32)
    wrong = inputs.order.flip(0) if what == "order" else getattr(inputs, what) * 1.001
    y = cpu.directional_forward(inputs._replace(**{what: wrong}), False)[0]
    assert problems.error(y, truth(inputs)[0]) > 10 * TOLERANCE


@pytest.mark.parametrize("step_scale", [1.0, 1e-3])
def test_nan_is_not_swallowed(simd: str, step_scale: float) -> None:
    """A diverged network must show: NaN in any input reaches the output."""
    inputs = problems.directional((4, 4), channels=9, dtype=torch.float32, step_scale=step_scale)
    for name in inputs._fields[:-1]:
        tensor = getattr(inputs, name).clone()
        tensor.view(-1)[0] = torch.nan
        assert cpu.directional_forward(inputs._replace(**{name: tensor}), False)[0].isnan().any(), name


def test_an_order_outside_the_map_is_refused() -> None:
    inputs = problems.directional((4, 5), dtype=torch.float32)
    for entry in (-1, 20):
        order = inputs.order.clone()
        order[1, 3] = entry
        with pytest.raises(ConfigError, match="order"):
            cpu.directional_forward(inputs._replace(order=order), False)


def test_other_devices_and_instruction_sets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not on cuda" in str(cpu.unavailable(torch.device("cuda")))
    monkeypatch.setenv(cpu.SIMD_VARIABLE, "sse9")
    with pytest.raises(BackendError, match="sse9.*portable"):
        cpu.variant()


def test_built_instruction_sets_hold_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ["avx512", "avx2", "portable"]  # best first
    assert [name for name in known if name in cpu.built()] == list(cpu.built())
    assert [name for name in cpu.built() if name in cpu.variants()] == list(cpu.variants())
    assert cpu.built()[-1] == cpu.variants()[-1] == "portable"
    cpu.built.cache_clear()
    monkeypatch.setattr(cpu, "library", object)  # without that entry
    with pytest.raises(BackendError, match="built from older sources.*reinstall medmamba_monai"):
        cpu.built()


def test_self_test_passes_and_catches_a_wrong_kernel(simd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu._self_test.cache_clear()
    assert cpu.self_test() is None
    cpu._self_test.cache_clear()
    forward = cpu.directional_forward
    monkeypatch.setattr(
        cpu, "directional_forward", lambda inputs, save: forward(inputs._replace(D=inputs.D * 1.01), save)
    )
    assert f"{simd} kernel is wrong" in str(cpu.self_test())
    cpu._self_test.cache_clear()


@pytest.mark.parametrize("spoilt", ["softplus", "initial_state", "C"])
def test_self_test_catches_a_wrong_plain_scan(spoilt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library whose directional scan is right may still fail at what only the plain scan has."""
    forward = cpu.sequence_forward

    def wrong(inputs: SequenceInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        other = {"softplus": False, "initial_state": None, "C": inputs.C.flip(1)}[spoilt]  # the groups in reverse
        y, last, _ = forward(inputs._replace(**{spoilt: other}), save)
        return y, last, forward(inputs, save)[2]

    cpu._self_test.cache_clear()
    monkeypatch.setattr(cpu, "sequence_forward", wrong)
    assert "kernel is wrong on this machine: in the plain scan y differs" in str(cpu.self_test())
    cpu._self_test.cache_clear()


def test_a_missing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_open", lambda: "its C library is not built; reinstall")
    assert "reinstall" in str(cpu.unavailable(torch.device("cpu")))
    with pytest.raises(BackendError, match="reinstall"):
        cpu.library()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_works_in_a_forked_process(threads: None) -> None:
    """Workers of a DataLoader fork after the parent has computed: nothing of its threads may be missed there."""
    torch.set_num_threads(2)
    inputs = problems.directional((9, 9), channels=64, states=16, dtype=torch.float32)
    expected = cpu.directional_forward(inputs, False)[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(cpu.directional_forward(inputs, False)[0], expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_through_the_public_function() -> None:
    inputs = problems.directional((5, 6), channels=8, dtype=torch.float32)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs[:-1]]
    y = directional_scan(*leaves, inputs.order, backend="cpu")
    grads = torch.autograd.grad(y, leaves, gradient_like(y))
    check([y.detach(), *grads], truth(inputs))
