"""Time and memory of a network against the number of pixels, in 2-D and 3-D, with a plot; linear cost has slope 1.

Each size runs in a process of its own, so that its peak memory is its own. Parity is checked first; while it is red, no
time is printed. Imports networks; matplotlib for the plot.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..networks import create
from ..ops.selective_scan import dispatch
from . import memory
from .machine import append_rows, describe
from .network import check_optimized
from .scan import check_parity
from .timing import Timing, measure

__all__ = ["Point", "add_arguments", "measure_size", "run", "slope"]

_SIDES = {2: (128, 192, 256, 384, 512, 768, 1024), 3: (32, 48, 64, 96, 128)}


class Point(NamedTuple):
    """One size: pixels or voxels, time, and peak memory in MB beyond the process before inference.

    The memory is None where the system does not tell it.
    """

    spatial_dims: int
    side: int
    pixels: int
    timing: Timing
    megabytes: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="time spent on each measurement")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/scaling.csv"))


def run(arguments: argparse.Namespace) -> None:
    """Measure all sizes, print the slopes, write the table anew and the plot beside it."""
    check_parity(dispatch.resolve("cpu"))
    for spatial_dims in _SIDES:
        check_optimized(create(arguments.preset, spatial_dims=spatial_dims, num_classes=2))
    unmeasurable = memory.unmeasurable()
    if unmeasurable is not None:
        print(f"peak memory is not measured: {unmeasurable}")
    points = []
    context = multiprocessing.get_context("spawn")
    for spatial_dims, sides in _SIDES.items():
        for side in sides:
            with context.Pool(1) as pool:
                measured = (arguments.preset, spatial_dims, side, arguments.threads, arguments.seconds)
                points.append(pool.apply(measure_size, measured))
            print(f"  {_line(points[-1])}")
    before = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)  # as in the processes that measured: the description names them
    arguments.out.unlink(missing_ok=True)
    append_rows(arguments.out, [_row(arguments, point) for point in points])
    torch.set_num_threads(before)
    large = [p for p in points if p.spatial_dims == 2 and p.side >= 256]
    print(f"log-log slope of time against pixels, 256 to 1024 squared: {slope(large):.3f}")
    _plot(points, arguments.preset, arguments.out.with_suffix(".png"))


def measure_size(preset: str, spatial_dims: int, side: int, threads: int, seconds: float) -> Point:
    """Time inference of one image and read the process's peak memory."""
    torch.set_num_threads(threads)
    network = create(preset, spatial_dims=spatial_dims, in_channels=1, num_classes=2).eval().optimize_for_inference()
    image = torch.rand((1, 1) + (side,) * spatial_dims)
    idle = None if memory.unmeasurable() else memory.reset_peak()
    with torch.inference_mode():
        timing = measure(lambda: network(image), seconds)
    peak = None if idle is None else memory.peak_megabytes() - idle
    return Point(spatial_dims, side, side**spatial_dims, timing, peak)


def slope(points: list[Point]) -> float:
    """Slope of log median time against log pixels, by least squares.

    Example:
        >>> slope([Point(2, 10, 100, Timing(1.0, 0.9, 1.2, 3), 0.0), Point(2, 20, 400, Timing(4.0, 3.9, 4.1, 3), 0.0)])
        1.0
    """
    pixels = [math.log(p.pixels) for p in points]
    times = [math.log(p.timing.median) for p in points]
    return round(float(np.polyfit(pixels, times, 1)[0]), 6)


def _line(point: Point) -> str:
    median, low, high, _ = point.timing
    beside = "" if point.megabytes is None else f", {point.megabytes:.0f} MB"
    return f"{point.spatial_dims}-D, side {point.side}: {median:.0f} ms, quartiles {low:.0f} to {high:.0f}{beside}"


def _row(arguments: argparse.Namespace, point: Point) -> dict[str, object]:
    timing = point.timing
    return {
        "preset": arguments.preset,
        "threads": arguments.threads,
        "spatial_dims": point.spatial_dims,
        "side": point.side,
        "pixels": point.pixels,
        "median_ms": f"{timing.median:.1f}",
        "quartiles_ms": f"{timing.low:.1f} {timing.high:.1f}",
        "calls": timing.calls,
        "megabytes": "" if point.megabytes is None else f"{point.megabytes:.1f}",
        **describe(),
    }


def _plot(points: list[Point], preset: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for spatial_dims, marker in ((2, "o"), (3, "s")):
        chosen = [p for p in points if p.spatial_dims == spatial_dims]
        pixels = [p.pixels for p in chosen]
        label = f"{spatial_dims}-D"
        times = [p.timing for p in chosen]
        spread = [[t.median - t.low for t in times], [t.high - t.median for t in times]]
        left.errorbar(pixels, [t.median for t in times], yerr=spread, marker=marker, capsize=3, label=label)
        known = [(p.pixels, max(p.megabytes, 1.0)) for p in chosen if p.megabytes is not None]
        right.loglog([x for x, _ in known], [y for _, y in known], marker=marker, label=label)
    flat = [p for p in points if p.spatial_dims == 2]
    left.loglog(
        [flat[0].pixels, flat[-1].pixels],
        [flat[-1].timing.median * flat[0].pixels / flat[-1].pixels, flat[-1].timing.median],
        "k--",
        linewidth=1,
        label="slope 1",
    )
    left.set(
        xlabel="pixels or voxels", ylabel="ms an image, with quartiles", title=f"MedMamba {preset}, inference, CPU"
    )
    measured = all(p.megabytes is not None for p in points)
    title = "Peak memory" if measured else "Peak memory: not measured"
    right.set(xlabel="pixels or voxels", ylabel="MB beyond the weights", title=title)
    left.legend()
    right.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
