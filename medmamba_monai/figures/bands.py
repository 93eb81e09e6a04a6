"""Bootstrap bands of ROC and precision-recall curves: pointwise percentiles over resampled clusters. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["FEWEST", "cluster_weights", "percentile_band", "precision_recall_band", "resamples_for", "roc_band"]

MOST_DRAWS = 2_000_000  # resamples times images, which keeps all classes of a large set within seconds
MOST_RESAMPLES, FEWEST = 1000, 200

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def resamples_for(count: int) -> int:
    """How many resamples a band of ``count`` images gets.

    Example:
        >>> resamples_for(100), resamples_for(4000), resamples_for(10**6)
        (1000, 500, 200)
    """
    return min(MOST_RESAMPLES, max(FEWEST, MOST_DRAWS // count))


def cluster_weights(clusters: Sequence[str], resamples: int, seed: int = 0) -> Values:
    """How often each image occurs when whole clusters are drawn with replacement.

    Args:
        clusters: the patient, or other group, of each of N images.
        resamples: R.
        seed: of the draws.

    Returns:
        (R, N).

    Example:
        >>> weights = cluster_weights(["p", "p", "q"], 5)
        >>> weights.shape, bool((weights[:, 0] == weights[:, 1]).all()), (weights[:, 0] + weights[:, 2]).tolist()
        ((5, 3), True, [2.0, 2.0, 2.0, 2.0, 2.0])
    """
    names, members = np.unique(np.asarray(clusters), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return drawn[:, members.reshape(-1)].astype(np.float64)


def roc_band(truth: Flags, scores: Values, weights: Values, grid: Values, level: float = 0.95) -> Values:
    """Bounds of the true positive rate at given false positive rates.

    Args:
        truth: (N,), whether an image is positive.
        scores: (N,).
        weights: (R, N), see :func:`cluster_weights`.
        grid: (G,) false positive rates, rising.
        level: share of resamples within the band.

    Returns:
        (2, G); NaN where no resample has images of both kinds.
    """
    hits, alarms = _cumulated(truth, scores, weights)
    usable = (hits[:, -1] > 0) & (alarms[:, -1] > 0)
    start = np.zeros((int(usable.sum()), 1))
    rates = np.hstack([start, hits[usable] / hits[usable, -1:]])
    places = np.hstack([start, alarms[usable] / alarms[usable, -1:]])
    # where the curve rises upright, np.interp takes the upper end
    curves = [np.interp(grid, place, rate) for place, rate in zip(places, rates, strict=True)]
    return percentile_band(np.array(curves).reshape(len(curves), len(grid)), level)


def precision_recall_band(truth: Flags, scores: Values, weights: Values, grid: Values, level: float = 0.95) -> Values:
    """Bounds of the precision at given recalls; arguments and result as those of :func:`roc_band`.

    The precision at a recall is that of the highest threshold that reaches it, as in average precision.
    """
    hits, alarms = _cumulated(truth, scores, weights)
    usable = hits[:, -1] > 0
    hits, alarms = hits[usable], alarms[usable]
    recalls = hits / hits[:, -1:]
    called = hits + alarms
    precisions = np.divide(hits, called, out=np.ones_like(hits), where=called > 0)
    # a recall of 0.3 reached up to rounding is reached
    reached = (np.searchsorted(row, grid - 1e-12) for row in recalls)
    curves = [row[np.minimum(index, len(row) - 1)] for row, index in zip(precisions, reached, strict=True)]
    return percentile_band(np.array(curves).reshape(len(curves), len(grid)), level)


def percentile_band(curves: Values, level: float) -> Values:
    """(2, G) percentiles of (R, G) curves; NaN without curves."""
    if not len(curves):
        return np.full((2, curves.shape[1]), np.nan)
    tail = 50 * (1 - level)
    bounds: Values = np.percentile(curves, [tail, 100 - tail], axis=0)
    return bounds


def _cumulated(truth: Flags, scores: Values, weights: Values) -> tuple[Values, Values]:
    """(R, T) weights of positives and of negatives from each distinct score on, from the highest downwards."""
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    sorted_weights = weights[:, order]
    hits = np.cumsum(sorted_weights * truth[order], axis=1)[:, last_of_ties]
    total = np.cumsum(sorted_weights, axis=1)[:, last_of_ties]
    return hits, total - hits
