"""Thresholds chosen on validation, and what they give on other images.

With two classes there is one threshold, on the second class. With more, each class has a threshold against the rest, a
decision of its own. Youden's J = sensitivity + specificity - 1 (Cancer 3:32, 1950) does not depend on prevalence, F1
does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import ConfigError
from medmamba_monai.metrics.temperature import check_labels

__all__ = ["CRITERIA", "LEAST_IMAGES", "best_threshold", "fit_thresholds", "thresholded"]

CRITERIA = ("youden", "f1")
LEAST_IMAGES = 5
"""Images with a class, and without it, below which no threshold is chosen for it."""

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


def best_threshold(positive: Any, scores: Any, criterion: str = "youden") -> float | None:
    """Threshold t for which "score >= t" is best: halfway to the next smaller score that occurs, the highest of equals.

    Args:
        positive: (N,) which images have the class.
        scores: (N,).
        criterion: "youden" or "f1".

    Returns:
        The threshold; None where no threshold does better than chance, or all images are of one kind.

    Raises:
        ConfigError: an unknown criterion.

    Example:
        >>> best_threshold([0, 0, 1, 1], [0.1, 0.3, 0.5, 0.9])
        0.4
    """
    if criterion not in CRITERIA:
        raise ConfigError(f"criterion={criterion!r}", remedy=f"use one of {', '.join(CRITERIA)}")
    flags, values = np.asarray(positive, dtype=bool), np.asarray(scores, dtype=np.float64)
    positives, negatives = int(flags.sum()), int((~flags).sum())
    if not positives or not negatives:
        return None
    steps, where = np.unique(-values, return_inverse=True)  # from the highest score down
    hits = np.cumsum(np.bincount(where, flags, len(steps)))
    alarms = np.cumsum(np.bincount(where, ~flags, len(steps)))
    gain = hits / positives - alarms / negatives
    if gain.max() <= 0:
        return None
    if criterion == "f1":
        gain = 2 * hits / (positives + hits + alarms)
    best = int(gain.argmax())
    lower = -steps[best + 1] if best + 1 < len(steps) else -steps[best]
    return float((-steps[best] + lower) / 2)


def fit_thresholds(
    labels: Any, probabilities: Any, class_names: Sequence[str], task: str = "multiclass", criterion: str = "youden"
) -> tuple[dict[str, float | None], list[str]]:
    """Choose the thresholds of all classes; with two classes that exclude one another, of the second only.

    Args:
        labels: (N,) class numbers, with task "multilabel" (N, C) of 0 and 1.
        probabilities: (N, C).
        class_names: C names.
        task: "multiclass" or "multilabel".
        criterion: "youden" or "f1".

    Returns:
        Class → threshold, None where none can be chosen; and the reasons for that.

    Raises:
        ConfigError: an unknown task or criterion.
        DataError: labels and probabilities do not fit together.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    flags = _flags(labels, values, task)
    found: dict[str, float | None] = {}
    remarks = []
    for index in _decided(class_names, task):
        name = class_names[index]
        least = int(min(flags[:, index].sum(), (~flags[:, index]).sum()))
        chosen = best_threshold(flags[:, index], values[:, index], criterion) if least >= LEAST_IMAGES else None
        found[name] = chosen
        if least < LEAST_IMAGES:
            remarks.append(
                f"no threshold for '{name}': it needs {LEAST_IMAGES} images with and without this class, "
                f"there are {int(flags[:, index].sum())} and {int((~flags[:, index]).sum())}"
            )
        elif chosen is None:
            remarks.append(f"no threshold for '{name}': none does better than chance")
    return found, remarks


def thresholded(
    labels: Any,
    probabilities: Any,
    class_names: Sequence[str],
    thresholds: Mapping[str, float | None],
    task: str = "multiclass",
) -> dict[str, Any]:
    """Scores of the decisions "probability >= threshold", class by class.

    Args:
        labels: (N,) class numbers, with task "multilabel" (N, C) of 0 and 1.
        probabilities: (N, C).
        class_names: C names.
        thresholds: from :func:`fit_thresholds`, of other images.
        task: "multiclass" or "multilabel".

    Returns:
        thresholds; per_class (name → threshold, sensitivity, specificity, precision, f1, youden, and tn, fp, fn, tp;
        None where a share has nothing to be a share of); with two exclusive classes also accuracy and
        balanced_accuracy; with task "multilabel" exact_match and hamming_loss where every class has a threshold.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    flags = _flags(labels, values, task)
    per_class: dict[str, Any] = {}
    for index in _decided(class_names, task):
        threshold = thresholds.get(class_names[index])
        if threshold is not None:
            per_class[class_names[index]] = _scores(flags[:, index], values[:, index], threshold)
    result: dict[str, Any] = {"thresholds": dict(thresholds), "per_class": per_class}
    if task == "multilabel" and len(per_class) == len(class_names):
        called = values >= np.array([float(thresholds[name] or 0.0) for name in class_names])
        result["exact_match"] = float((called == flags).all(axis=1).mean())
        result["hamming_loss"] = float((called != flags).mean())
    elif task == "multiclass" and len(class_names) == 2 and per_class:
        scores = per_class[class_names[1]]
        shares = (scores["sensitivity"], scores["specificity"])
        result["accuracy"] = (scores["tp"] + scores["tn"]) / len(flags)
        result["balanced_accuracy"] = None if None in shares else float(np.mean(shares))
    return result


def _decided(class_names: Sequence[str], task: str) -> range:
    return range(1, 2) if task == "multiclass" and len(class_names) == 2 else range(len(class_names))


def _flags(labels: Any, values: Values, task: str) -> Flags:
    truth = check_labels(labels, values, task)
    return truth == 1 if task == "multilabel" else truth[:, None] == np.arange(values.shape[1])


def _scores(positive: Flags, values: Values, threshold: float) -> dict[str, Any]:
    called = values >= threshold
    tp, fp = int((positive & called).sum()), int((~positive & called).sum())
    fn, tn = int((positive & ~called).sum()), int((~positive & ~called).sum())
    sensitivity, specificity = _share(tp, tp + fn), _share(tn, tn + fp)
    return {
        "threshold": float(threshold),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": _share(tp, tp + fp),
        "f1": _share(2 * tp, 2 * tp + fp + fn) if tp + fn else None,
        "youden": None if sensitivity is None or specificity is None else sensitivity + specificity - 1,
        **{"tn": tn, "fp": fp, "fn": fn, "tp": tp},
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
