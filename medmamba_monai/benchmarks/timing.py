"""Median and spread of the times of several functions, called in turn so that a busy machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

__all__ = ["Timing", "measure", "measure_together"]

_TURNS = 40


class Timing(NamedTuple):
    """Milliseconds of one call: median, quartiles, and how many calls were timed."""

    median: float
    low: float
    high: float
    calls: int


def measure_together(
    functions: Mapping[str, Callable[[], object]], seconds: float = 1.0, least: int = 3
) -> dict[str, Timing]:
    """Call functions in turn, a fortieth of ``seconds`` at a time, at least ``least`` times after one not counted.

    A function that takes longer than its share is called only as often as it must be; the others get theirs all the
    same.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        _timed(function)
    turns = max(_TURNS, least)
    for turn in range(1, turns + 1):
        for name, function in functions.items():
            while len(times[name]) < min(turn, least) or sum(times[name]) < 1e3 * seconds * turn / turns:
                times[name].append(_timed(function))
    return {name: _summary(values) for name, values in times.items()}


def measure(function: Callable[[], object], seconds: float = 1.0, least: int = 3) -> Timing:
    """Time one function; see :func:`measure_together`."""
    return measure_together({"it": function}, seconds, least)["it"]


def _timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def _summary(times: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else (times[0],) * 3
    return Timing(median, low, high, len(times))
