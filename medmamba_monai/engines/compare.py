"""Which of two validation scores is better, where one may be undefined. Used by configs."""

from __future__ import annotations

import math

__all__ = ["better_metric"]


def better_metric(current: float, best: float) -> bool:
    """Whether ``current`` beats ``best``; NaN never wins and always loses to a number.

    MONAI's default compares with ``>``, which is never true against NaN: an undefined score in the first
    epoch would then keep the first epoch's network for ever.

    Example:
        >>> better_metric(0.5, float("nan")), better_metric(float("nan"), 0.5), better_metric(0.6, 0.5)
        (True, False, True)
    """
    if math.isnan(current):
        return False
    return math.isnan(best) or current > best
