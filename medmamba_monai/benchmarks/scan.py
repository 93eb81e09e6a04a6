"""Time of the directional scan by every backend that runs on CPUs, on the stage shapes of the tiny preset at 224 x 224.

Ratios are to the reference loop in the same run, on the same number of threads, and to a floor: as many multiply-adds
in registers as the scan needs vector operations at least, timed in turn with the others, so that a busy machine slows
both alike. Parity with the reference in float64 is checked first; while it is red, no time is printed. Imports ops.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BackendError
from ..ops import index_table
from ..ops.selective_scan import cpu, dispatch, reference
from ..ops.selective_scan.contract import DirectionalInputs
from . import gpu, released_flow
from .machine import append_rows, describe
from .timing import Timing, measure_together

__all__ = ["STAGES", "add_arguments", "check_parity", "floor_rounds", "problem", "run"]

# Sides of the map, channels and rank of the step sizes in the four stages of the tiny preset at 224 x 224.
STAGES = ((56, 96, 3), (28, 192, 6), (14, 384, 12), (7, 768, 24))
_STATES, _PARITY = 16, 1e-5
# Vector operations for a vector of states: eight for the exponential, the others for the recurrence and the output.
_OPERATIONS = 12.5
_FLOOR = "floor: multiply-adds alone"
# Trained networks' step sizes differ by about a percent from pixel to pixel, which the C kernel makes use of; those of
# the other rows, and the floor's exponentials, are for inputs of any kind.
_RELEASED = "released flow, reference loop"
_LARGEST_TRAINED = 196  # pixels; the loop's autograd takes time with their square
_STEADY, _MOVE = "cpu, steps that hardly change", 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="time spent on each measurement")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/scan.csv"))


def problem(
    side: int, channels: int, rank: int, batch: int, dtype: torch.dtype = torch.float32, move: float = 1.0
) -> DirectionalInputs:
    """Inputs as the network makes them: dt, B and C are parts of one projection; step sizes change by ``move``."""
    generator = torch.Generator().manual_seed(0)
    order = index_table("cross", (side, side))
    k, length = order.shape

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    dt, B, C = draw(batch, length, k, rank + 2 * _STATES).split([rank, _STATES, _STATES], dim=-1)
    A = -torch.arange(1, _STATES + 1, dtype=dtype).expand(k, channels, _STATES).contiguous()
    ones = torch.ones(k, channels, dtype=dtype)
    return DirectionalInputs(
        draw(batch, length, channels), dt, A, B, C, ones, draw(k, channels, rank) / rank * move, -3 * ones, order
    )


def check_parity(backend: str) -> None:
    """Compare output and gradients with the reference in float64 on a small map.

    Raises:
        BackendError: when they differ by more than 1e-5 of the largest value.
    """
    for move in (1.0, _MOVE):
        _check_parity(backend, problem(9, 24, 2, 2, move=move))


def _check_parity(backend: str, single: DirectionalInputs) -> None:
    module = dispatch.load(backend)
    y, saved = module.directional_forward(single, True)
    _compare(f"backend {backend!r}", single, y, lambda grad: module.directional_backward(grad, single, saved))


def check_released_flow() -> None:
    """Compare output and gradients of the baseline with the reference in float64 on a small map.

    Raises:
        BackendError: when they differ by more than 1e-5 of the largest value.
    """
    single = problem(9, 24, 2, 2)
    leaves = _leaves(single)
    y = released_flow.directional_scan(leaves)
    _compare("the released flow", single, y.detach(), lambda grad: torch.autograd.grad(y, leaves[:-1], grad))


def _compare(name: str, single: DirectionalInputs, y: Tensor, backward: Callable[[Tensor], Iterable[Tensor]]) -> None:
    double = DirectionalInputs._make(t.double() if t.is_floating_point() else t for t in single)
    truth = reference.directional_scan(double)
    # weights that differ from pixel to pixel, so that a swap of pixels shows
    grad = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1), dtype=truth.dtype)
    saved = torch.empty(0)  # the reference keeps nothing
    pairs = [(y, truth)]
    pairs += zip(backward(grad.to(y.dtype)), reference.directional_backward(grad, double, saved), strict=True)
    worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    if not worst <= _PARITY:
        raise BackendError(f"{name} differs from the reference by {worst:.1e}; no speed is reported")


def _leaves(inputs: DirectionalInputs) -> DirectionalInputs:
    """Copies of the inputs that ask for gradients."""
    *tensors, order = inputs
    return DirectionalInputs(*[*(t.clone().requires_grad_() for t in tensors), order])


def floor_rounds(inputs: DirectionalInputs) -> int:
    """Rounds of :func:`cpu.multiply_adds` that do as many vector operations as the forward scan needs at least."""
    batch, length, channels = inputs.u.shape
    needed = _OPERATIONS * batch * length * channels * inputs.A.shape[0] * inputs.A.shape[2]
    return math.ceil(needed / cpu.multiply_adds(1))


def _both_ways(name: str, inputs: DirectionalInputs) -> None:
    module = dispatch.load(name)
    y, saved = module.directional_forward(inputs, True)
    module.directional_backward(y, inputs, saved)


def _released_both_ways(leaves: DirectionalInputs) -> None:
    y = released_flow.directional_scan(leaves)
    torch.autograd.grad(y, leaves[:-1], torch.ones_like(y))


def run(arguments: argparse.Namespace) -> None:
    """Measure, print ratios and write the table anew."""
    usable = [name for name in dispatch.BACKENDS if dispatch.unavailable(name, "cpu") is None]
    for name in usable:
        check_parity(name)
    check_released_flow()
    arguments.out.unlink(missing_ok=True)
    before = torch.get_num_threads()
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        stages: list[dict[str, Timing]] = []
        for stage, (side, channels, rank) in enumerate(STAGES, start=1):
            inputs = problem(side, channels, rank, arguments.batch)
            calls = _contestants(usable, inputs)
            if "cpu" in usable:
                steady = problem(side, channels, rank, arguments.batch, move=_MOVE)
                calls[_STEADY] = partial(dispatch.load("cpu").directional_forward, steady, False)
            stages.append(measure_together(calls, arguments.seconds))
            append_rows(arguments.out, _rows(stage, inputs, threads, stages[-1]))
        print(f"{threads} thread(s), batch {arguments.batch}: sum over the stages")
        print("\n".join(_totals(stages)))
    torch.set_num_threads(before)
    gpu.report("scan", arguments.out.with_name("gpu.csv"), arguments.seconds)


def _totals(stages: Sequence[dict[str, Timing]]) -> list[str]:
    """A line for each row: the sum over the stages it was measured on, and ratios over the same stages."""
    lines = []
    for name in dict.fromkeys(name for timings in stages for name in timings):
        measured = [number for number, timings in enumerate(stages) if name in timings]
        total, loop = (sum(stages[number][row].median for number in measured) for row in (name, "reference"))
        line = f"  {name:<48} {total:9.1f} ms   {loop / total:8.1f} x reference"
        if _FLOOR in stages[0] and _has_floor(name):
            line += f"   {total / sum(stages[number][_FLOOR].median for number in measured):6.2f} x floor"
        if len(measured) < len(stages):
            plural = "s" if len(measured) > 1 else ""
            line += f"   (stage{plural} {', '.join(str(number + 1) for number in measured)} alone)"
        lines.append(line)
    return lines


def _has_floor(name: str) -> bool:
    """Whether the floor counts what this row does."""
    return name != _STEADY and not name.endswith("backward")


def _contestants(usable: list[str], inputs: DirectionalInputs) -> dict[str, Callable[[], object]]:
    calls: dict[str, Callable[[], object]] = {_RELEASED: partial(released_flow.directional_scan, inputs)}
    if inputs.u.shape[1] <= _LARGEST_TRAINED:
        calls[f"{_RELEASED} forward + backward"] = partial(_released_both_ways, _leaves(inputs))
    if cpu.unavailable(inputs.u.device) is None:
        calls[_FLOOR] = partial(cpu.multiply_adds, floor_rounds(inputs))
    for name in usable:
        calls[name] = partial(dispatch.load(name).directional_forward, inputs, False)
        if name != "reference":
            calls[f"{name} forward + backward"] = partial(_both_ways, name, inputs)
    return calls


def _rows(stage: int, inputs: DirectionalInputs, threads: int, timings: dict[str, Timing]) -> list[dict[str, object]]:
    base = timings["reference"].median
    floor = timings[_FLOOR].median if _FLOOR in timings else None
    batch, pixels, channels = inputs.u.shape
    return [
        {
            "stage": stage,
            "pixels": pixels,
            "channels": channels,
            "batch": batch,
            "threads": threads,
            "what": name,
            "median_ms": f"{timing.median:.3f}",
            "quartiles_ms": f"{timing.low:.3f} {timing.high:.3f}",
            "calls": timing.calls,
            "times_reference_forward": f"{base / timing.median:.2f}",
            "times_floor": f"{timing.median / floor:.2f}" if floor is not None and _has_floor(name) else "",
            **describe(),
        }
        for name, timing in timings.items()
    ]
