"""Metrics where an image may have several classes or none: scikit-learn's where those are defined, null where not.

A class that no image has (or that all have) leaves its AUC undefined; such a value is None with a reason, and so is
every mean it would enter, as in metrics.classification.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import ConfigError, DataError

__all__ = ["MULTILABEL_SCORE_NAMES", "THRESHOLD", "multilabel_report"]

MULTILABEL_SCORE_NAMES = (
    "auc",
    "average_precision",
    "f1",
    "sensitivity",
    "specificity",
    "exact_match",
    "hamming_loss",
)
THRESHOLD = 0.5
_MEANS = ("auc", "average_precision", "f1", "sensitivity", "specificity")

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


def multilabel_report(
    labels: Any, probabilities: Any, class_names: Sequence[str], threshold: float = THRESHOLD
) -> dict[str, Any]:
    """All metrics of a set of predictions, ready for JSON.

    Args:
        labels: (N, C) of 0 and 1.
        probabilities: (N, C) in [0, 1], each for itself.
        class_names: C names.
        threshold: a class is predicted where its probability is at least this.

    Returns:
        n, task, class_names, threshold, auc and average_precision (macro means; they do not depend on the
        threshold), f1, sensitivity and specificity (macro means), exact_match (share of images with every class
        right, scikit-learn's accuracy), hamming_loss (share of wrong single answers), per_class (name → support,
        the five metrics, and tn, fp, fn, tp), undefined (metric → reason).

    Raises:
        ConfigError: a threshold outside (0, 1).
        DataError: no samples, shapes that do not fit, labels other than 0 and 1, values that are no probabilities.

    Example:
        >>> report = multilabel_report([[1, 0], [1, 1], [0, 0]], [[0.9, 0.2], [0.4, 0.8], [0.1, 0.3]], ["a", "b"])
        >>> report["auc"], round(report["exact_match"], 3), report["per_class"]["a"]["sensitivity"]
        (1.0, 0.667, 0.5)
    """
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold={threshold} lies outside 0 to 1", remedy="give a number between them")
    truth, values = _checked(labels, probabilities, len(class_names))
    called = values >= threshold
    undefined: dict[str, str] = {}
    per_class = {
        name: _one_class(truth[:, index], values[:, index], called[:, index], name, undefined)
        for index, name in enumerate(class_names)
    }
    means: dict[str, float | None] = {}
    for metric in _MEANS:
        found = [entry[metric] for entry in per_class.values()]
        lacking = [name for name, value in zip(class_names, found, strict=True) if value is None]
        means[metric] = None if lacking else float(np.mean(found))
        if lacking:
            undefined[metric] = f"undefined for: {', '.join(lacking)}"
    return {
        "n": len(truth),
        "task": "multilabel",
        "class_names": list(class_names),
        "threshold": float(threshold),
        **means,
        "exact_match": float((truth == called).all(axis=1).mean()),
        "hamming_loss": float((truth != called).mean()),
        "per_class": per_class,
        "undefined": undefined,
    }


def _checked(labels: Any, probabilities: Any, classes: int) -> tuple[Flags, Values]:
    truth = np.asarray(labels)
    values = np.asarray(probabilities, dtype=np.float64)
    if truth.size == 0:
        raise DataError("there are no predictions to judge", remedy="check that the split is not empty")
    if truth.ndim != 2 or truth.shape[1] != classes or values.shape != truth.shape:
        raise DataError(f"{truth.shape} labels and {values.shape} probabilities for {classes} classes do not fit")
    if not np.isin(truth, (0, 1)).all():
        raise DataError("labels are not all 0 or 1", remedy="give a 0 or 1 for each class")
    if not ((values >= 0) & (values <= 1)).all():
        row = int(np.argmin(((values >= 0) & (values <= 1)).all(axis=1)))
        raise DataError(f"the values of sample {row} are no probabilities", remedy="apply a sigmoid to the logits")
    return truth.astype(bool), values


def _one_class(truth: Flags, values: Values, called: Flags, name: str, undefined: dict[str, str]) -> dict[str, Any]:
    """The metrics of one class; what is undefined gets its reason."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    tp, fp = int((truth & called).sum()), int((~truth & called).sum())
    fn, tn = int((truth & ~called).sum()), int((~truth & ~called).sum())
    positives, negatives = tp + fn, tn + fp
    entry: dict[str, Any] = {
        "support": positives,
        "auc": float(roc_auc_score(truth, values)) if positives and negatives else None,
        "average_precision": float(average_precision_score(truth, values)) if positives else None,
        # without a positive image f1 would be 0 whatever the network does
        "f1": 2 * tp / (2 * tp + fp + fn) if positives else None,
        "sensitivity": tp / positives if positives else None,
        "specificity": tn / negatives if negatives else None,
    }
    reason = "no image has this class" if positives == 0 else "every image has this class"
    undefined.update({f"{name}.{metric}": reason for metric, value in entry.items() if value is None})
    return {**entry, "tn": tn, "fp": fp, "fn": fn, "tp": tp}
