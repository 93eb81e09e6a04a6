"""NaN never wins."""

from __future__ import annotations

import math

import pytest

from medmamba_monai.engines import better_metric


@pytest.mark.parametrize(
    ("current", "best", "expected"),
    [(0.6, 0.5, True), (0.5, 0.5, False), (0.4, 0.5, False), (math.nan, 0.5, False), (0.1, math.nan, True),
     (math.nan, math.nan, False), (0.1, -1, True)],
)  # fmt: skip
def test_better_metric(current: float, best: float, expected: bool) -> None:
    assert better_metric(current, best) is expected
