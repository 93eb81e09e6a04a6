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


def test_a_slow_function_does_not_take_the_share_of_a_fast_one() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("s")
        time.sleep(0.02)

    def fast() -> None:
        order.append("f")
        time.sleep(0.001)

    timings = measure_together({"slow": slow, "fast": fast}, seconds=0.02)
    assert timings["slow"].calls == 3
    assert timings["fast"].calls >= 8
    assert "".join(order).count("sf") == 4  # in turn
