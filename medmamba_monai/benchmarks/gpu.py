"""What the scan and network benchmarks measure on a GPU, against the released data flow with mamba-ssm's kernel.

Each row of the table is a target. Without a CUDA device, or without the baseline, rows say "not measured": no figure
ever stands in for one. The measuring itself takes any device, so that it can be tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import BackendError
from ..ops import directional_scan, strides
from ..ops.selective_scan import dispatch, mamba_ssm
from ..ops.selective_scan.contract import DirectionalInputs
from . import released_flow
from .machine import append_rows, describe, read_rows
from .timing import measure_together

__all__ = ["NOT_MEASURED", "TARGETS", "Measurement", "measure_network", "measure_scan", "report", "table"]

NOT_MEASURED = "not measured"
NO_TARGET = "none set"
RIVALS = ("MONAI DenseNet121", "MONAI ResNet50", "MONAI ViT-S/16")
_COLUMNS = ("benchmark", "quantity", "target", "measured", "baseline", "ours")

# Benchmark and quantity -> target; times of the baseline over ours unless the quantity says otherwise.
TARGETS = {
    ("scan", "directional scan, forward, batch 64"): ">= 5 x",
    ("scan", "directional scan, forward + backward, batch 64"): ">= 3 x",
    ("scan", "share of the special-function roofline, forward scan"): ">= 60 %",
    ("network", "inference, batch 64, bfloat16 against released float32"): ">= 4 x",
    ("network", "inference, batch 64, both bfloat16"): ">= 2.5 x",
    ("network", "inference, batch 128, both bfloat16"): ">= 2.5 x",
    **{("network", f"inference, batch 64, both bfloat16, {name} over ours"): NO_TARGET for name in RIVALS},
    ("network", "training step, batch 64, AMP against released float32"): ">= 3 x",
    ("network", "training step, batch 64, both AMP"): ">= 2.2 x",
    ("network", "training step, batch 128, both AMP"): ">= 2.2 x",
    **{("network", f"training step, batch 64, both AMP, {name} over ours"): NO_TARGET for name in RIVALS},
    ("network", "latency of one image, bfloat16 CUDA graph against released float32 eager"): ">= 6 x",
    ("network", "peak training memory, batch 64, AMP over released float32"): "<= 0.4 x",
}


class Measurement(NamedTuple):
    """A ratio or share as text, and the two numbers it was made of."""

    measured: str
    baseline: str
    ours: str


def report(benchmark: str, path: Path, seconds: float) -> None:
    """Measure the rows of one benchmark where that is possible, write them to the table and print them.

    Args:
        benchmark: "scan" or "network".
        path: the table; rows of the other benchmark stay.
        seconds: spent on each measurement.

    Raises:
        BackendError: when ours and the baseline compute different results.
    """
    reason = _unmeasurable()
    measured: dict[str, Measurement] = {}
    if reason is None:
        device = torch.device("cuda")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        if benchmark == "scan":
            measured = measure_scan(device, mamba_ssm.sequence_scan, seconds)
        else:
            measured = measure_network(device, mamba_ssm.sequence_scan, seconds)
    rows = _rows(benchmark, measured)
    kept = [row for row in read_rows(path) if row["benchmark"] != benchmark]
    path.unlink(missing_ok=True)
    everything: list[Mapping[str, object]] = [*kept, *rows]
    append_rows(path, sorted(everything, key=lambda row: list(TARGETS).index((row["benchmark"], row["quantity"]))))  # type: ignore[arg-type]
    print(f"On a GPU{'' if reason is None else f': {NOT_MEASURED}, {reason}'}")
    for row in rows:
        print(f"  {row['quantity']:<62} {row['measured']:>12}   target {row['target']}")


def table(rows: Iterable[Mapping[str, object]]) -> str:
    """The table as Markdown."""
    lines = ["| benchmark | quantity | target | measured |", "| --- | --- | --- | --- |"]
    lines += [f"| {r['benchmark']} | {r['quantity']} | {r['target']} | {r['measured']} |" for r in rows]
    return "\n".join(lines) + "\n"


def _unmeasurable() -> str | None:
    if not torch.cuda.is_available():
        return "no CUDA device here"
    for name in ("triton", "mamba_ssm"):
        reason = dispatch.unavailable(name, "cuda")
        if reason is not None:
            return f"backend {name!r} cannot run: {reason}"
    return None


def _rows(benchmark: str, measured: Mapping[str, Measurement]) -> list[dict[str, object]]:
    nothing = Measurement(NOT_MEASURED, "", "")
    return [
        {
            **dict(zip(_COLUMNS, (benchmark, quantity, target, *measured.get(quantity, nothing)), strict=True)),
            **describe(),
        }
        for (name, quantity), target in TARGETS.items()
        if name == benchmark
    ]


def _times(baseline: float, ours: float) -> Measurement:
    return Measurement(f"{baseline / ours:.2f} x", f"{baseline:.3f} ms", f"{ours:.3f} ms")


def measure_scan(
    device: torch.device,
    kernel: released_flow.Kernel,
    seconds: float,
    stages: tuple[tuple[int, int, int], ...] | None = None,
    batch: int = 64,
) -> dict[str, Measurement]:
    """Time the directional scan and the released flow on the stage shapes, float32.

    Args:
        device: where.
        kernel: of the released flow.
        seconds: spent on each measurement.
        stages: side, channels and rank; those of the tiny preset if None.
        batch: images.

    Raises:
        BackendError: when they compute different results.
    """
    from .scan import STAGES, problem

    sums = {"ours": 0.0, "baseline": 0.0, "ours, training": 0.0, "baseline, training": 0.0}
    exponentials = 0
    for side, channels, rank in stages or STAGES:
        inputs = problem(side, channels, rank, batch)
        inputs = DirectionalInputs(*(tensor.to(device) for tensor in inputs))
        leaves = DirectionalInputs(*[*(t.clone().requires_grad_() for t in inputs[:-1]), inputs.order])
        ours = partial(directional_scan, strides=strides("cross", (side, side)))
        with torch.no_grad():
            _require_equal("outputs", [ours(*inputs)], [released_flow.directional_scan(inputs, kernel)], 1e-4)
        _require_equal(
            "gradients",
            _scan_gradients(ours(*leaves), leaves),
            _scan_gradients(released_flow.directional_scan(leaves, kernel), leaves),
            1e-3,
        )
        timings = measure_together(
            {
                "ours": lambda f=ours, i=inputs: f(*i),  # type: ignore[misc]
                "baseline": lambda i=inputs: released_flow.directional_scan(i, kernel),  # type: ignore[misc]
                "ours, training": lambda f=ours, i=leaves: _both_ways(f(*i), i),  # type: ignore[misc]
                "baseline, training": lambda i=leaves: _both_ways(released_flow.directional_scan(i, kernel), i),  # type: ignore[misc]
            },
            seconds,
        )
        for name, timing in timings.items():
            sums[name] += timing.median
        exponentials += batch * inputs.order.numel() * channels * inputs.A.shape[2]
    forward, both, roofline = (quantity for name, quantity in TARGETS if name == "scan")
    result = {
        forward: _times(sums["baseline"], sums["ours"]),
        both: _times(sums["baseline, training"], sums["ours, training"]),
    }
    if device.type == "cuda":
        peak = _exponentials_per_ms(device)
        share = exponentials / sums["ours"] / peak
        result[roofline] = Measurement(f"{100 * share:.0f} %", f"{peak:.3g} / ms", f"{share * peak:.3g} / ms")
    return result


def _exponentials_per_ms(device: torch.device) -> float:
    """What the special-function units can do: 16 a clock on each multiprocessor, at the highest clock."""
    properties: Any = torch.cuda.get_device_properties(device)
    return float(properties.multi_processor_count * 16 * properties.clock_rate)  # kHz are clocks a millisecond


def _both_ways(y: Tensor, leaves: tuple[Tensor, ...]) -> None:
    torch.autograd.grad(y, leaves[:-1], torch.ones_like(y))


def _scan_gradients(y: Tensor, leaves: tuple[Tensor, ...]) -> Sequence[Tensor]:
    """Gradients for weights of the output that differ from pixel to pixel, so that a swap of pixels shows."""
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
    return torch.autograd.grad(y, leaves[:-1], weights)


def _network_gradients(network: nn.Module, images: Tensor) -> Sequence[Tensor]:
    """Gradients of all parameters; in evaluation mode, as training draws which branches it drops."""
    labels = torch.arange(len(images), device=images.device) % 6
    loss = nn.functional.cross_entropy(network.eval()(images), labels)
    return torch.autograd.grad(loss, list(network.parameters()))


def _require_equal(what: str, ours: Sequence[Tensor], baseline: Sequence[Tensor], tolerance: float) -> None:
    """Compare each tensor by its largest difference over its largest value; NaN is a difference.

    Tensors of rounding alone, a millionth of the largest of all, are measured by that.
    """
    least = 1e-6 * max(b.abs().max().item() for b in baseline)
    errors = [
        ((a - b).abs().max() / b.abs().max().clamp_min(least)).item() for a, b in zip(ours, baseline, strict=True)
    ]
    wrong = [error for error in errors if not error <= tolerance]
    if wrong:
        raise BackendError(
            f"{what} differ from the released flow's by {max(wrong):.1e} on {baseline[0].device.type}; "
            "no speed is reported"
        )


def measure_network(
    device: torch.device,
    kernel: released_flow.Kernel,
    seconds: float,
    preset: str = "tiny",
    size: int = 224,
    batch: int = 64,
) -> dict[str, Measurement]:
    """Time inference, training and the latency of one image, and take the peak memory of training.

    Args:
        device: where.
        kernel: of the released flow.
        seconds: spent on each measurement.
        preset: size of MedMamba.
        size: side of the images.
        batch: images; some rows take twice as many.

    Raises:
        BackendError: when ours and the released flow compute different results.
    """
    from ..networks import create
    from .network import contestants, with_released_flow

    ours = create(preset, num_classes=6).to(device)
    released = with_released_flow(create(preset, num_classes=6), kernel).to(device)
    released.load_state_dict(ours.state_dict())
    rivals = {n: f.to(device) for n, f in contestants(preset, size, inference=False).items() if n in RIVALS}
    images, more = (torch.rand(count, 3, size, size, device=device) for count in (batch, 2 * batch))
    folded = ours.eval().optimize_for_inference()
    with torch.inference_mode():
        _require_equal("logits", [folded(images[:2])], [released.eval()(images[:2])], 1e-3)
    # float32 throughout many layers, and each tensor of gradients by its own scale, which differ by ten powers of ten
    _require_equal("gradients", _network_gradients(ours, images[:2]), _network_gradients(released, images[:2]), 1e-2)
    latency: dict[str, Callable[[], object]] = {
        "ours": captured(partial(_infer, folded, images[:1], True), device),
        "baseline": partial(_infer, released, images[:1], False),
    }
    one = _medians(latency, seconds)
    inference = {
        "ours": partial(_infer, folded, images, True),
        "float32": partial(_infer, released, images, False),
        "half": partial(_infer, released, images, True),
        "ours, more": partial(_infer, folded, more, True),
        "half, more": partial(_infer, released, more, True),
        **{name: partial(_infer, rival.eval(), images, True) for name, rival in rivals.items()},
    }
    many = _medians(inference, seconds)
    training = {
        "ours": _training_step(ours.train(), images, True),
        "float32": _training_step(released.train(), images, False),
        "half": _training_step(released, images, True),
        "ours, more": _training_step(ours, more, True),
        "half, more": _training_step(released, more, True),
        **{name: _training_step(rival.train(), images, True) for name, rival in rivals.items()},
    }
    steps = _medians(training, seconds)
    result = {
        "latency of one image, bfloat16 CUDA graph against released float32 eager": _times(one["baseline"], one["ours"])
    }
    for task, half, times in (("inference", "bfloat16", many), ("training step", "AMP", steps)):
        result |= {
            f"{task}, batch 64, {half} against released float32": _times(times["float32"], times["ours"]),
            f"{task}, batch 64, both {half}": _times(times["half"], times["ours"]),
            f"{task}, batch 128, both {half}": _times(times["half, more"], times["ours, more"]),
        }
        result |= {
            f"{task}, batch 64, both {half}, {name} over ours": _times(times[name], times["ours"]) for name in RIVALS
        }
    if device.type == "cuda":
        mine, theirs = (_peak_megabytes(training[name], device) for name in ("ours", "float32"))
        memory = Measurement(f"{mine / theirs:.2f} x", f"{theirs:.0f} MB", f"{mine:.0f} MB")
        result["peak training memory, batch 64, AMP over released float32"] = memory
    return result


def _medians(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Milliseconds of each call, taken in turns."""
    return {
        name: timing.median
        for name, timing in measure_together(dict(calls), seconds, least=3 if seconds else 1).items()
    }


def captured(function: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """The function as a CUDA graph; itself on other devices."""
    if device.type != "cuda":
        return function
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels are compiled and tables made before the capture
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def _infer(network: nn.Module, images: Tensor, half: bool) -> None:
    with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        network(images)


def _training_step(network: nn.Module, images: Tensor, half: bool) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    labels = torch.arange(len(images), device=images.device) % 6

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            logits = network(images)
            logits = logits[0] if isinstance(logits, tuple) else logits  # ViT gives its hidden states too
            loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()

    return step


def _peak_megabytes(function: Callable[[], object], device: torch.device) -> float:
    """Peak of the tensors of one call, those that were there before it left out."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    function()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / (1 << 20)
