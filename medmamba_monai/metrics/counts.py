"""Metrics that follow from counts alone, for many tables at once: NaN where they would divide by zero. Imports nothing.

Leading axes are free, so that a thousand resampled tables cost one call; the reports take scikit-learn's for the one
table of the data itself, and the tests hold both together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["binary_metrics", "table_metrics"]

Values = npt.NDArray[np.float64]


def binary_metrics(tp: Values, fp: Values, fn: Values, tn: Values) -> dict[str, Values]:
    """Sensitivity, specificity, F1 and Matthews' correlation of one class against the rest.

    Args:
        tp: counts of any shape: right calls,
        fp: false alarms,
        fn: misses,
        tn: the rest.

    Returns:
        By name, of that shape; NaN where undefined, F1 also where there are no positives.

    Example:
        >>> {name: round(float(value), 3) for name, value in binary_metrics(*np.array([8.0, 1, 2, 9])).items()}
        {'sensitivity': 0.8, 'specificity': 0.9, 'f1': 0.842, 'mcc': 0.704}
    """
    positives, negatives = tp + fn, tn + fp
    root = np.sqrt(positives * negatives * (tp + fp) * (tn + fn))
    return {
        "sensitivity": _ratio(tp, positives),
        "specificity": _ratio(tn, negatives),
        "f1": np.where(positives > 0, _ratio(2 * tp, 2 * tp + fp + fn), np.nan),
        "mcc": _ratio(tp * tn - fp * fn, root),
    }


def table_metrics(counts: Values) -> dict[str, Values]:
    """Accuracy, both kappas and the correlation of several classes (Gorodkin 2004) from confusion matrices.

    Args:
        counts: (..., C, C), row = true class.

    Returns:
        By name, of shape (...); NaN where undefined.

    Example:
        >>> {name: round(float(value), 2) for name, value in table_metrics(np.array([[8.0, 2], [1, 9]])).items()}
        {'accuracy': 0.85, 'kappa': 0.7, 'quadratic_kappa': 0.7, 'mcc': 0.7}
    """
    classes = counts.shape[-1]
    total = counts.sum((-2, -1))
    true, called = counts.sum(-1), counts.sum(-2)
    hits = np.trace(counts, axis1=-2, axis2=-1)
    chance = (true * called).sum(-1)
    number = np.arange(classes)
    distance = (number[:, None] - number[None]) ** 2.0
    observed = (counts * distance).sum((-2, -1))
    expected = np.einsum("...i,ij,...j->...", true, distance, called)
    square = total**2
    root = np.sqrt((square - (true**2).sum(-1)) * (square - (called**2).sum(-1)))
    return {
        "accuracy": _ratio(hits, total),
        "kappa": _ratio(hits * total - chance, square - chance),
        "quadratic_kappa": 1 - _ratio(observed * total, expected),
        "mcc": _ratio(hits * total - chance, root),
    }


def _ratio(above: Values, below: Values) -> Values:
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0)
