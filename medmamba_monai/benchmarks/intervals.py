"""Bootstrap intervals of balanced accuracy over groups of images that belong together. Imports numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["balanced_accuracies", "interval"]


def balanced_accuracies(
    labels: Sequence[int], predictions: Sequence[int], groups: Sequence[str], resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Balanced accuracy of resampled test parts.

    Args:
        labels: (n,) classes from 0.
        predictions: (n,) classes.
        groups: (n,) what is drawn together: a patient, a lesion, a frame.
        resamples: how many.
        seed: the same seed draws the same groups, so that two models can be compared resample by resample.

    Returns:
        (resamples,) recall averaged over the classes that a resample contains.

    Example:
        >>> balanced_accuracies([0, 0, 1, 1], [0, 0, 1, 1], ["a", "b", "c", "d"], resamples=3)
        array([1., 1., 1.])
    """
    truth, answer = np.asarray(labels), np.asarray(predictions)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    classes = int(truth.max()) + 1
    totals, hits = np.zeros((2, len(names), classes))
    np.add.at(totals, (member, truth), 1)
    np.add.at(hits, (member, truth), truth == answer)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    present = drawn @ totals
    with np.errstate(invalid="ignore"):
        recall = (drawn @ hits) / present
    return np.asarray(np.nanmean(recall, axis=1))


def interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of a bootstrap distribution."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
