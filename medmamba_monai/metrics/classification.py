"""Metrics of single-label classification: scikit-learn's where those are defined, null where not.

A metric is undefined when it would divide by zero: a class without samples has no sensitivity. Such a value
is None with a reason, and so is every mean it would enter; a silent 0 or a mean over fewer classes would look
like a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import DataError

__all__ = ["SCORE_NAMES", "classification_report", "confusion_matrix", "score"]

SCORE_NAMES = ("accuracy", "balanced_accuracy", "auc", "f1", "sensitivity", "specificity", "quadratic_kappa")

Values = npt.NDArray[np.float64]


def confusion_matrix(labels: Sequence[int], predictions: Sequence[int], num_classes: int) -> npt.NDArray[np.int64]:
    """(C, C) counts: row = true class, column = predicted class.

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 1, 0], 2).tolist()
        [[1, 0], [1, 1]]
    """
    pairs = np.asarray(labels, dtype=np.int64) * num_classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def classification_report(labels: Sequence[int], probabilities: Any, class_names: Sequence[str]) -> dict[str, Any]:
    """All metrics of a set of predictions, ready for JSON.

    Args:
        labels: N true class numbers.
        probabilities: (N, C), rows sum to one; the predicted class is the first largest.
        class_names: C names.

    Returns:
        n, class_names, accuracy, balanced_accuracy (mean sensitivity), auc (one against the rest, macro
        mean), f1, sensitivity and specificity (macro means), quadratic_kappa (agreement beyond chance, errors
        weighted by the square of the distance between class numbers: of use where the classes are grades in
        the order of ``class_names``), per_class (name → support, auc, f1, sensitivity, specificity),
        confusion_matrix (row = true class), undefined (metric → reason).

    Raises:
        DataError: no samples, shapes that do not fit, labels outside the classes, probabilities that are not
            finite.

    Example:
        >>> probabilities = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
        >>> report = classification_report([0, 1, 1], probabilities, ["benign", "malignant"])
        >>> report["balanced_accuracy"], report["per_class"]["malignant"]["sensitivity"]
        (0.75, 0.5)
    """
    truth, scores = _checked(labels, probabilities, len(class_names))
    counts = confusion_matrix(truth.tolist(), scores.argmax(axis=1).tolist(), len(class_names))
    undefined: dict[str, str] = {}
    per_class = {
        name: _one_class(truth, scores, counts, index, name, undefined) for index, name in enumerate(class_names)
    }
    means: dict[str, float | None] = {}
    for metric in ("auc", "f1", "sensitivity", "specificity"):
        values = [entry[metric] for entry in per_class.values()]
        lacking = [name for name, value in zip(class_names, values, strict=True) if value is None]
        means[metric] = None if lacking else float(np.mean(values))
        if lacking:
            undefined[metric] = f"undefined for: {', '.join(lacking)}"
    if "sensitivity" in undefined:
        undefined["balanced_accuracy"] = undefined["sensitivity"]
    kappa = _quadratic_kappa(truth, scores)
    if kappa is None:
        undefined["quadratic_kappa"] = "one class only, in the labels and in the predictions"
    return {
        "n": len(truth),
        "class_names": list(class_names),
        "accuracy": float(np.trace(counts) / counts.sum()),
        "balanced_accuracy": means["sensitivity"],
        **means,
        "quadratic_kappa": kappa,
        "per_class": per_class,
        "confusion_matrix": counts.tolist(),
        "undefined": undefined,
    }


def score(name: str, labels: Sequence[int], probabilities: Any) -> float:
    """One metric of ``classification_report`` by name; NaN where it is undefined.

    Raises:
        DataError: an unknown name, or what ``classification_report`` raises.

    Example:
        >>> score("accuracy", [0, 1], [[0.9, 0.1], [0.8, 0.2]])
        0.5
    """
    if name not in SCORE_NAMES:
        raise DataError(f"there is no metric '{name}'", remedy=f"one of: {', '.join(SCORE_NAMES)}")
    values = np.asarray(probabilities, dtype=np.float64)
    names = [str(index) for index in range(values.shape[-1])]
    value = classification_report(labels, values, names)[name]
    return float("nan") if value is None else float(value)


def _checked(labels: Sequence[int], probabilities: Any, classes: int) -> tuple[npt.NDArray[np.int64], Values]:
    truth = np.asarray(labels, dtype=np.int64)
    scores = np.asarray(probabilities, dtype=np.float64)
    if truth.size == 0:
        raise DataError("there are no predictions to judge", remedy="check that the split is not empty")
    if truth.ndim != 1 or scores.shape != (truth.size, classes):
        raise DataError(f"{truth.shape} labels and {scores.shape} probabilities for {classes} classes do not fit")
    if truth.min() < 0 or truth.max() >= classes:
        raise DataError(f"labels run from {truth.min()} to {truth.max()}, but there are {classes} classes")
    if not np.isfinite(scores).all():
        raise DataError(f"probabilities of sample {int(np.argmin(np.isfinite(scores).all(axis=1)))} are not finite")
    return truth, scores


def _quadratic_kappa(truth: npt.NDArray[np.int64], scores: Values) -> float | None:
    """Cohen's kappa with quadratic weights; None where it would divide by zero."""
    from sklearn.metrics import cohen_kappa_score

    predicted = scores.argmax(axis=1)
    if len({*truth.tolist(), *predicted.tolist()}) == 1:
        return None
    classes = list(range(scores.shape[1]))
    return float(cohen_kappa_score(truth, predicted, labels=classes, weights="quadratic"))


def _one_class(
    truth: npt.NDArray[np.int64],
    scores: Values,
    counts: npt.NDArray[np.int64],
    index: int,
    name: str,
    undefined: dict[str, str],
) -> dict[str, Any]:
    """The metrics of one class against the rest; what is undefined gets its reason."""
    from sklearn.metrics import roc_auc_score

    hits = int(counts[index, index])
    positives, called = int(counts[index].sum()), int(counts[:, index].sum())
    negatives = len(truth) - positives
    entry: dict[str, Any] = {"support": positives}
    reason = "no samples of this class" if positives == 0 else "no samples of another class"
    auc = None
    if positives and negatives:
        auc = float(roc_auc_score(truth == index, scores[:, index]))
    false_alarms = called - hits
    entry["auc"] = auc
    entry["f1"] = 2 * hits / (positives + called) if positives + called else None
    entry["sensitivity"] = hits / positives if positives else None
    entry["specificity"] = (negatives - false_alarms) / negatives if negatives else None
    undefined.update({f"{name}.{metric}": reason for metric, value in entry.items() if value is None})
    return entry
