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
from medmamba_monai.metrics.binary import macro_means, one_class
from medmamba_monai.metrics.calibration_error import expected_calibration_error, reliability_bins
from medmamba_monai.metrics.intervals import Predictions, report_intervals
from medmamba_monai.metrics.resampled import MACRO

__all__ = ["MULTILABEL_SCORE_NAMES", "THRESHOLD", "multilabel_predictions", "multilabel_report"]

MULTILABEL_SCORE_NAMES = (
    "auc",
    "average_precision",
    "f1",
    "sensitivity",
    "specificity",
    "mcc",
    "exact_match",
    "hamming_loss",
    "brier",
    "log_loss",
    "ece",
)
THRESHOLD = 0.5

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


def multilabel_report(
    labels: Any,
    probabilities: Any,
    class_names: Sequence[str],
    threshold: float = THRESHOLD,
    clusters: Sequence[Any] | None = None,
    resamples: int = 0,
) -> dict[str, Any]:
    """All metrics of a set of predictions, ready for JSON.

    Args:
        labels: (N, C) of 0 and 1.
        probabilities: (N, C) in [0, 1], each for itself.
        class_names: C names.
        threshold: a class is predicted where its probability is at least this.
        clusters: N patients or other groups that images belong to, for the intervals; None: images are independent.
        resamples: of the bootstrap; 0: no intervals.

    Returns:
        n, task, class_names, threshold; auc and average_precision (macro means; they do not depend on the
        threshold), f1, sensitivity, specificity, mcc and brier (macro means), exact_match (share of images with every
        class right, scikit-learn's accuracy), hamming_loss (share of wrong single answers), log_loss and ece (of the
        single answers), per_class (name → support, the metrics of ``CLASS_METRICS`` and tn, fp, fn, tp), reliability
        (bins of the single answers), undefined (metric → reason). With ``resamples`` also what ``metrics.intervals``
        adds.

    Raises:
        ConfigError: a threshold outside (0, 1).
        DataError: no samples, shapes that do not fit, labels other than 0 and 1, values that are no probabilities.

    Example:
        >>> report = multilabel_report([[1, 0], [1, 1], [0, 0]], [[0.9, 0.2], [0.4, 0.8], [0.1, 0.3]], ["a", "b"])
        >>> report["auc"], round(report["exact_match"], 3), report["per_class"]["a"]["sensitivity"]
        (1.0, 0.667, 0.5)
    """
    from sklearn.metrics import log_loss

    predictions = multilabel_predictions(labels, probabilities, class_names, threshold)
    truth, values, called = predictions[:3]
    undefined: dict[str, str] = {}
    per_class: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(class_names):
        per_class[name], reasons = one_class(truth[:, index], values[:, index], called[:, index])
        undefined |= {f"{name}.{metric}": reason for metric, reason in reasons.items()}
    means, reasons = macro_means(per_class, MACRO["multilabel"])
    report = {
        "n": len(truth),
        "task": "multilabel",
        "class_names": list(class_names),
        "threshold": float(threshold),
        **means,
        "exact_match": float((truth == called).all(axis=1).mean()),
        "hamming_loss": float((truth != called).mean()),
        "log_loss": float(log_loss(truth.ravel(), values.ravel(), labels=[False, True])),
        "ece": expected_calibration_error(values.ravel(), truth.ravel()),
        "per_class": per_class,
        "reliability": {"of": "all single answers", "bins": reliability_bins(values.ravel(), truth.ravel())},
        "undefined": undefined | reasons,
    }
    if resamples:
        report_intervals(predictions, report, clusters, resamples)
    return report


def multilabel_predictions(
    labels: Any, probabilities: Any, class_names: Sequence[str], threshold: float = THRESHOLD
) -> Predictions:
    """Labels and probabilities as all metrics take them.

    Raises:
        ConfigError, DataError: as `multilabel_report`.
    """
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold={threshold} lies outside 0 to 1", remedy="give a number between them")
    truth, values = _checked(labels, probabilities, len(class_names))
    return Predictions(truth, values, values >= threshold, list(class_names), "multilabel", True)


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
