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
from medmamba_monai.metrics.binary import NO_PROBABILITIES, macro_means, one_class
from medmamba_monai.metrics.calibration_error import expected_calibration_error, reliability_bins
from medmamba_monai.metrics.intervals import Predictions, report_intervals
from medmamba_monai.metrics.resampled import MACRO, normalised

__all__ = ["SCORE_NAMES", "classification_report", "confusion_matrix", "multiclass_predictions", "score"]

SCORE_NAMES = (
    "accuracy",
    "balanced_accuracy",
    "auc",
    "average_precision",
    "f1",
    "sensitivity",
    "specificity",
    "mcc",
    "kappa",
    "quadratic_kappa",
    "brier",
    "log_loss",
    "ece",
)
SUM_TOLERANCE = 1e-3

Numbers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def confusion_matrix(labels: Sequence[int], predictions: Sequence[int], num_classes: int) -> npt.NDArray[np.int64]:
    """(C, C) counts: row = true class, column = predicted class.

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 1, 0], 2).tolist()
        [[1, 0], [1, 1]]
    """
    pairs = np.asarray(labels, dtype=np.int64) * num_classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def classification_report(
    labels: Sequence[int],
    probabilities: Any,
    class_names: Sequence[str],
    clusters: Sequence[Any] | None = None,
    resamples: int = 0,
) -> dict[str, Any]:
    """All metrics of a set of predictions, ready for JSON.

    Args:
        labels: N true class numbers.
        probabilities: (N, C), rows sum to one; the predicted class is the first largest. Other scores leave what needs
            probabilities undefined.
        class_names: C names.
        clusters: N patients or other groups that images belong to, for the intervals; None: images are independent.
        resamples: of the bootstrap; 0: no intervals.

    Returns:
        n, class_names, accuracy, balanced_accuracy (mean sensitivity); auc and average_precision (one against the
        rest), f1, sensitivity and specificity (means over the classes); mcc, kappa, quadratic_kappa (agreement beyond
        chance, errors weighted by the square of the distance between class numbers: of use where the classes are
        grades in the order of ``class_names``); brier (squared error summed over the classes, halved for two),
        log_loss, ece (of the predicted class); per_class (name → support, the metrics of ``binary.CLASS_METRICS`` and
        tn, fp, fn, tp), confusion_matrix (row = true class), reliability (bins), undefined (metric → reason). With
        ``resamples`` also what ``metrics.intervals`` adds.

    Raises:
        DataError: no samples, shapes that do not fit, labels outside the classes, probabilities that are not
            finite.

    Example:
        >>> probabilities = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
        >>> report = classification_report([0, 1, 1], probabilities, ["benign", "malignant"])
        >>> report["balanced_accuracy"], report["per_class"]["malignant"]["sensitivity"]
        (0.75, 0.5)
    """
    predictions = multiclass_predictions(labels, probabilities, class_names)
    truth, called = predictions.truth.argmax(1), predictions.called.argmax(1)
    undefined: dict[str, str] = {}
    per_class: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(class_names):
        flags, calls = predictions.truth[:, index], predictions.called[:, index]
        per_class[name], reasons = one_class(flags, predictions.values[:, index], calls, predictions.probabilities)
        undefined |= {f"{name}.{metric}": reason for metric, reason in reasons.items()}
    means, reasons = macro_means(per_class, MACRO["multiclass"])
    undefined |= reasons
    if "sensitivity" in undefined:
        undefined["balanced_accuracy"] = undefined["sensitivity"]
    agreements, reasons = _agreements(truth, called, len(class_names))
    stated, more = _stated(truth, predictions)
    report = {
        "n": len(truth),
        "class_names": list(class_names),
        "accuracy": float((truth == called).mean()),
        "balanced_accuracy": means["sensitivity"],
        **means,
        **agreements,
        **stated,
        "per_class": per_class,
        "confusion_matrix": confusion_matrix(truth.tolist(), called.tolist(), len(class_names)).tolist(),
        "reliability": _reliability(truth, predictions),
        "undefined": undefined | reasons | more,
    }
    if resamples:
        report_intervals(predictions, report, clusters, resamples)
    return report


def multiclass_predictions(labels: Sequence[int], probabilities: Any, class_names: Sequence[str]) -> Predictions:
    """Labels and probabilities as all metrics take them.

    Raises:
        DataError: as `classification_report`.
    """
    truth, values = _checked(labels, probabilities, len(class_names))
    stated = bool((values >= 0).all() and (np.abs(values.sum(1) - 1) <= SUM_TOLERANCE).all())
    one_hot = np.eye(len(class_names), dtype=bool)
    called = one_hot[values.argmax(axis=1)]
    return Predictions(one_hot[truth], values, called, list(class_names), "multiclass", stated)


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
    return multiclass_predictions(labels, values, [str(index) for index in range(values.shape[-1])]).score(name)


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


def _agreements(truth: Numbers, called: Numbers, classes: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Matthews' correlation and the kappas; undefined where they would divide by zero."""
    from sklearn.metrics import cohen_kappa_score, matthews_corrcoef

    found: dict[str, Any] = {"mcc": None, "kappa": None, "quadratic_kappa": None}
    several = [len(set(part.tolist())) > 1 for part in (truth, called)]
    reasons = {}
    if all(several):
        found["mcc"] = float(matthews_corrcoef(truth, called))
    else:
        reasons["mcc"] = f"one class only, in the {'predictions' if several[0] else 'labels'}"
    if set(truth.tolist()) | set(called.tolist()) == {int(truth[0])}:
        reasons |= dict.fromkeys(("kappa", "quadratic_kappa"), "one class only, in the labels and in the predictions")
    else:
        for name, weights in (("kappa", None), ("quadratic_kappa", "quadratic")):
            found[name] = float(cohen_kappa_score(truth, called, labels=list(range(classes)), weights=weights))
    return found, reasons


def _stated(truth: Numbers, predictions: Predictions) -> tuple[dict[str, Any], dict[str, str]]:
    """What judges the probabilities themselves."""
    from sklearn.metrics import brier_score_loss, log_loss

    if not predictions.probabilities:
        names = ("brier", "log_loss", "ece")
        return dict.fromkeys(names), dict.fromkeys(names, NO_PROBABILITIES)
    values, classes = normalised(predictions.values), list(range(predictions.values.shape[1]))
    if len(classes) == 1:
        return {"brier": 0.0, "log_loss": 0.0, "ece": 0.0}, {}
    return {
        "brier": float(brier_score_loss(truth, values[:, 1] if len(classes) == 2 else values, labels=classes)),
        "log_loss": float(log_loss(truth, values, labels=classes)),
        "ece": expected_calibration_error(*_top(truth, predictions)),
    }, {}


def _reliability(truth: Numbers, predictions: Predictions) -> dict[str, Any] | None:
    """Confidence in the predicted class against how often it is right."""
    if not predictions.probabilities:
        return None
    return {"of": "the predicted class", "bins": reliability_bins(*_top(truth, predictions))}


def _top(truth: Numbers, predictions: Predictions) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Confidence in the predicted class, and whether it is right."""
    return predictions.values.max(1).clip(0, 1), truth == predictions.values.argmax(1)
