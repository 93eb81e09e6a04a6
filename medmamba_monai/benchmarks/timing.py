"""Median and spread of a function's time. Imports torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

__all__ = ["Timing", "measure"]


class Timing(NamedTuple):
    """Milliseconds of one call: median, quartiles, and how many calls were timed."""

    median: float
    low: float
    high: float
    calls: int


def measure(function: Callable[[], object], seconds: float = 1.0, least: int = 3) -> Timing:
    """Call a function for about ``seconds``, at least ``least`` times after one call that is not counted."""
    function()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else (times[0],) * 3
    return Timing(median, low, high, len(times))
