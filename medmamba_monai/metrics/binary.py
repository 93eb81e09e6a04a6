"""The metrics of one class against the rest: scikit-learn's where they are defined, null with a reason where not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.metrics.calibration_error import expected_calibration_error

__all__ = ["CLASS_METRICS", "macro_means", "one_class"]

CLASS_METRICS = ("auc", "average_precision", "f1", "sensitivity", "specificity", "mcc", "brier", "ece")
NONE_HAS_IT, ALL_HAVE_IT = "no image has this class", "every image has this class"
NO_PROBABILITIES = "the predicted values are no probabilities"

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


def one_class(truth: Flags, values: Values, called: Flags, probabilities: bool = True) -> tuple[dict[str, Any], ...]:
    """All metrics of one class.

    Args:
        truth: (N,) whether an image has the class.
        values: (N,) its scores.
        called: (N,) whether it is predicted.
        probabilities: whether the scores are probabilities; without, Brier score and calibration error are undefined.

    Returns:
        Metric → value or None, with support and the counts tn, fp, fn and tp; and metric → reason for None.

    Example:
        >>> entry, reasons = one_class(np.array([True, True]), np.array([0.9, 0.4]), np.array([True, False]))
        >>> entry["sensitivity"], entry["auc"], reasons["auc"]
        (0.5, None, 'every image has this class')
    """
    from sklearn.metrics import average_precision_score, brier_score_loss, matthews_corrcoef, roc_auc_score

    tp, fp = int((truth & called).sum()), int((~truth & called).sum())
    fn, tn = int((truth & ~called).sum()), int((~truth & ~called).sum())
    positives, negatives = tp + fn, tn + fp
    both = bool(positives and negatives)
    constant = not (tp + fp and tn + fn)
    scores = np.clip(values, 0, 1)
    entry = {
        "support": positives,
        "auc": float(roc_auc_score(truth, values)) if both else None,
        "average_precision": float(average_precision_score(truth, values)) if positives else None,
        # without a positive image f1 would be 0 whatever the network does
        "f1": 2 * tp / (2 * tp + fp + fn) if positives else None,
        "sensitivity": tp / positives if positives else None,
        "specificity": tn / negatives if negatives else None,
        "mcc": float(matthews_corrcoef(truth, called)) if both and not constant else None,
        "brier": float(brier_score_loss(truth, scores, labels=[False, True])) if probabilities else None,
        "ece": expected_calibration_error(scores, truth) if probabilities else None,
        "tn": tn,
        "fp": fp,
        "fn": fn,
        "tp": tp,
    }
    absent = ALL_HAVE_IT if positives else NONE_HAS_IT
    reasons = {metric: absent for metric, value in entry.items() if value is None}
    if both and constant:
        reasons["mcc"] = f"the class is {'always' if tp + fp else 'never'} predicted"
    if not probabilities:
        reasons |= dict.fromkeys(("brier", "ece"), NO_PROBABILITIES)
    return entry, reasons


def macro_means(per_class: dict[str, dict[str, Any]], metrics: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """Means over the classes, undefined where one of them is.

    Returns:
        Metric → mean or None, and metric → reason for None.

    Example:
        >>> macro_means({"a": {"auc": 0.9}, "b": {"auc": None}}, ("auc",))
        ({'auc': None}, {'auc': 'undefined for: b'})
    """
    means: dict[str, Any] = {}
    reasons: dict[str, Any] = {}
    for metric in metrics:
        lacking = [name for name, entry in per_class.items() if entry[metric] is None]
        means[metric] = None if lacking else float(np.mean([entry[metric] for entry in per_class.values()]))
        if lacking:
            reasons[metric] = f"undefined for: {', '.join(lacking)}"
    return means, reasons
