"""Timing counts the calls it makes and orders its quartiles."""

from __future__ import annotations

import time

from medmamba_monai.benchmarks.timing import measure


def test_measures_what_a_call_takes() -> None:
    calls: list[None] = []

    def work() -> None:
        calls.append(None)
        time.sleep(0.002)

    timing = measure(work, seconds=0.0, least=5)
    assert len(calls) == timing.calls + 1 == 6
    assert 2.0 <= timing.low <= timing.median <= timing.high
