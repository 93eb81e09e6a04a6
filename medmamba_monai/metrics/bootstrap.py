"""Intervals by resampling clusters: bias-corrected and accelerated, undefined where they would mislead.

Whole clusters (patients, or images where those are not known) are drawn with replacement. The method is BCa (Efron,
JASA 1987, doi:10.1080/01621459.1987.10478410): the bootstrap distributions of AUC, sensitivity and the like are skewed
near 1, which plain percentiles ignore. The acceleration comes from leaving out clusters, in at most `BLOCKS` blocks. No
method of this kind repairs the calibration error: it is a sum of absolute values, which resampling moves up; see
metrics.intervals. Imports numpy and SciPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.metrics.resampled import Key

__all__ = ["LEVEL", "RESAMPLES", "Interval", "bca_interval", "bootstrap_intervals", "cluster_numbers", "draw_weights"]

RESAMPLES, LEVEL, SEED = 1000, 0.95, 0
BLOCKS = 200
AT_ONCE = 1 << 24  # weights, 128 MB
FEWEST_CLUSTERS = 10
FEW_CLUSTERS = "independent groups or images are too few for an interval"
CONSTANT = "the same in every resample: the data hold nothing that varies it"
NO_VALUE = "the value itself is undefined"
MOST_UNDEFINED = 0.1  # share of resamples; a class that only two patients have is missing from 13 %
MOST_SHIFTED = 0.9  # share of resamples on one side of the estimate

Values = npt.NDArray[np.float64]
Metrics = Callable[[Values], Mapping[Key, Values]]


@dataclass(frozen=True)
class Interval:
    """An interval, or why there is none.

    Attributes:
        bounds: low and high, or None.
        reason: why there is none; empty where there is one.
        undefined: resamples in which the value was undefined.
    """

    bounds: tuple[float, float] | None
    reason: str = ""
    undefined: int = 0

    @property
    def listed(self) -> list[float] | None:
        """Low and high as JSON has them, or None."""
        return None if self.bounds is None else list(self.bounds)

    def without(self, reason: str) -> Interval:
        """No interval for this reason; what has none because nothing varies it keeps its own."""
        return self if self.reason in (CONSTANT, NO_VALUE) else replace(self, bounds=None, reason=reason)


def cluster_numbers(clusters: Sequence[Any] | None, count: int) -> npt.NDArray[np.intp]:
    """(N,) numbers from 0 of what is drawn together, in the order of first occurrence; None: each image by itself.

    Example:
        >>> cluster_numbers(["P7", "P2", "P7"], 3).tolist(), cluster_numbers(None, 3).tolist()
        ([0, 1, 0], [0, 1, 2])
    """
    if clusters is None:
        return np.arange(count)
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)


def draw_weights(clusters: int, resamples: int = RESAMPLES, seed: int = SEED) -> Values:
    """(R, G) how often each cluster is drawn; the same seed draws the same, so that models are compared pair by pair.

    Example:
        >>> draw_weights(5, 2).sum(axis=1).tolist()
        [5.0, 5.0]
    """
    return _draw(np.random.default_rng(seed), clusters, resamples)


def _draw(generator: np.random.Generator, clusters: int, resamples: int) -> Values:
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples).astype(np.float64)


def _in_parts(metrics: Metrics, weights: Callable[[slice], Values], count: int, clusters: int) -> dict[Key, Values]:
    """What ``metrics`` gives for rows 0 .. count - 1 of weights, made a part at a time to bound the memory."""
    step = max(1, AT_ONCE // clusters)
    parts = [metrics(weights(slice(first, min(first + step, count)))) for first in range(0, count, step)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def bootstrap_intervals(
    metrics: Metrics, clusters: int, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = SEED
) -> dict[Key, Interval]:
    """Intervals of all values that a function of cluster weights gives.

    Args:
        metrics: maps weights (R, G) to values (R,) by key, NaN where undefined.
        clusters: G.
        resamples: how many.
        level: of the intervals.
        seed: of the draw.

    Example:
        >>> outcomes = np.arange(100) % 4 == 0
        >>> found = bootstrap_intervals(lambda weights: {("mean", None): weights @ outcomes / 100}, 100)
        >>> low, high = found["mean", None].bounds
        >>> 0.15 < low < 0.19 and 0.32 < high < 0.36
        True
    """
    whole = metrics(np.ones((1, clusters)))
    if clusters < FEWEST_CLUSTERS:
        return {key: Interval(None, f"{clusters} {FEW_CLUSTERS}") for key in whole}
    generator, count = np.random.default_rng(seed), min(clusters, BLOCKS)
    drawn = _in_parts(metrics, lambda part: _draw(generator, clusters, part.stop - part.start), resamples, clusters)
    blocks = np.random.default_rng(seed).permutation(clusters) % count
    left_out = _in_parts(
        metrics, lambda part: (blocks != np.arange(count)[part, None]).astype(np.float64), count, clusters
    )
    return {key: bca_interval(float(whole[key][0]), drawn[key], left_out[key], level) for key in whole}


def bca_interval(estimate: float, drawn: Values, left_out: Values, level: float = LEVEL) -> Interval:
    """The bias-corrected and accelerated interval of one value.

    Args:
        estimate: value of the data.
        drawn: (R,) values of the resamples, NaN where undefined; those are left out and counted.
        left_out: (B,) values without each block of clusters.
        level: of the interval.

    Example:
        >>> bca_interval(0.5, np.linspace(0, 1, 1001), np.array([0.4, 0.6])).bounds
        (0.025, 0.975)
    """
    from scipy.special import ndtr, ndtri

    defined = drawn[np.isfinite(drawn)]
    undefined = drawn.size - defined.size
    if not np.isfinite(estimate):
        return Interval(None, NO_VALUE, undefined)
    if undefined > MOST_UNDEFINED * drawn.size:
        return Interval(None, f"undefined in {undefined} of {drawn.size} resamples: too few groups", undefined)
    if np.ptp(defined) <= 1e-12:
        return Interval(None, CONSTANT, undefined)
    tolerance = 1e-12 * max(1.0, abs(estimate))
    below, above = (defined < estimate - tolerance).mean(), (defined > estimate + tolerance).mean()
    if max(below, above) > MOST_SHIFTED:
        side, share = ("above", above) if above > below else ("below", below)
        return Interval(None, f"{share:.0%} of the resamples lie {side} the value: biased by resampling", undefined)
    shift = ndtri(below + (1 - below - above) / 2)
    influence = left_out[np.isfinite(left_out)]
    influence = influence.mean() - influence if influence.size else influence
    spread = (influence**2).sum()
    acceleration = float((influence**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0
    ends = shift + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(defined, ndtr(shift + ends / (1 - acceleration * ends)))
    return Interval((float(low), float(high)), "", undefined)
