"""Timing counts the calls it makes and orders its quartiles."""

from __future__ import annotations

import time

from medmamba_monai.benchmarks.timing import measure, measure_together


def test_measures_what_a_call_takes() -> None:
    calls: list[None] = []

    def work() -> None:
        calls.append(None)
        time.sleep(0.002)

    timing = measure(work, seconds=0.0, least=5)
    assert len(calls) == timing.calls + 1 == 6
    assert 2.0 <= timing.low <= timing.median <= timing.high


def test_functions_take_turns() -> None:
    order: list[str] = []
    timings = measure_together({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0.0, least=3)
    assert "".join(order) == "ab" * 4
    assert [timing.calls for timing in timings.values()] == [3, 3]
