"""What a report says of its own uncertainty: bootstrap intervals, and DeLong's for the AUC of each class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import DataError
from medmamba_monai.metrics.bootstrap import LEVEL, RESAMPLES, SEED, Interval, bootstrap_intervals, cluster_numbers
from medmamba_monai.metrics.delong import delong_areas, delong_interval, too_few
from medmamba_monai.metrics.resampled import Key, ResampledMetrics

__all__ = ["Predictions", "delong_variance", "numbered", "report_intervals", "resampling", "unsound"]

BIASED = "resampling biases the calibration error upwards"
RANKED = ("auc", "average_precision")

PROPORTIONS = {"accuracy", "exact_match", "sensitivity", "specificity"}
"""Shares of images that are right; at 0 and 1 the bootstrap has nothing to vary, and the exact binomial takes over."""

MEANS = {"sensitivity", "specificity"}
"""Those that are means over the classes in the report of all of them."""

Flags = npt.NDArray[np.bool_]


class Predictions(NamedTuple):
    """Checked predictions of a set of images.

    Attributes:
        truth: (N, C) whether an image has a class.
        values: (N, C) scores.
        called: (N, C) what is predicted.
        class_names: C names.
        task: "multiclass" or "multilabel".
        probabilities: whether the scores are probabilities.
    """

    truth: Flags
    values: npt.NDArray[np.float64]
    called: Flags
    class_names: list[str]
    task: str
    probabilities: bool

    def score(self, name: str) -> float:
        """One metric over all classes, NaN where undefined; without the rest of a report, for every epoch."""
        count = len(self.truth)
        found = self.resampled(np.arange(count))(np.ones((1, count)))
        return float(found[name, None][0]) if (name, None) in found else float("nan")

    def resampled(self, member: npt.NDArray[np.intp]) -> ResampledMetrics:
        """All metrics as a function of cluster weights."""
        return ResampledMetrics(
            self.truth, self.values, self.called, member, self.class_names, self.task, self.probabilities
        )


def report_intervals(
    predictions: Predictions,
    report: dict[str, Any],
    clusters: Sequence[Any] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> None:
    """Add intervals to a report: intervals, auc_delong, resampling, per_class[...].intervals, and reasons in undefined.

    Args:
        predictions: what the report is of.
        report: changed in place.
        clusters: (N,) patients or other groups; None: images are independent.
        resamples: how many.
        seed: of the draw.

    Raises:
        DataError: not one cluster an image.
    """
    member = numbered(clusters, len(predictions.truth))
    metrics = predictions.resampled(member)
    found = bootstrap_intervals(metrics, metrics.clusters, resamples, LEVEL, seed)
    for key, reason in unsound(found, predictions, member).items():
        found[key] = found[key].without(reason)
    exact: list[str] = []
    for (metric, name), interval in found.items():
        place = report if name is None else report["per_class"][name]
        if metric in PROPORTIONS and interval.bounds is None and (name is not None or metric not in MEANS):
            instead = _exact(predictions, metric, name, place.get(metric), member)
            if instead is not None:
                interval = instead
                exact.append(_label((metric, name)))
        place.setdefault("intervals", {})[metric] = interval.listed
        if interval.bounds is None and place.get(metric) is not None:
            report["undefined"][_label((f"intervals.{metric}", name))] = interval.reason
    report["auc_delong"] = _delong(predictions, member, report)
    report["resampling"] = {
        **resampling(clusters, metrics.clusters, resamples, seed),
        "undefined_resamples": {_label(key): each.undefined for key, each in found.items() if each.undefined},
        "exact_binomial": exact,
        "delong": delong_variance(metrics.clusters, len(member)),
    }


def unsound(keys: Iterable[Key], predictions: Predictions, member: npt.NDArray[np.intp]) -> dict[Key, str]:
    """Which metrics get no interval from resampling, however many resamples, and why.

    The calibration error does not, nor do AUC and average precision of a class that few patients have or lack, with the
    means over the classes that they enter: in simulated studies such intervals miss the true value far too often.
    """
    few = {
        name: reason
        for index, name in enumerate(predictions.class_names)
        if (reason := too_few(predictions.truth[:, index], member))
    }
    found: dict[Key, str] = {}
    for metric, name in keys:
        if metric == "ece":
            found[metric, name] = BIASED
        elif metric in RANKED and (few if name is None else name in few):
            lacking = next(iter(few)) if name is None else name
            found[metric, name] = few[lacking] + (f" ('{lacking}')" if name is None else "")
    return found


def numbered(clusters: Sequence[Any] | None, count: int) -> npt.NDArray[np.intp]:
    """Cluster numbers of ``count`` images.

    Raises:
        DataError: not one cluster an image.
    """
    if clusters is not None and len(clusters) != count:
        raise DataError(f"{len(clusters)} clusters for {count} images", remedy="give one an image")
    return cluster_numbers(clusters, count)


def resampling(clusters: Sequence[Any] | None, count: int, resamples: int, seed: int) -> dict[str, Any]:
    """How the intervals were made, for the record."""
    return {
        "unit": "image" if clusters is None else "group",
        "clusters": count,
        "resamples": resamples,
        "level": LEVEL,
        "seed": seed,
        "method": "BCa",
    }


def delong_variance(clusters: int, images: int) -> str:
    """Which variance of the AUC a report has, in words."""
    return "DeLong, images independent" if clusters == images else "Obuchowski, for groups of several images"


def _label(key: Key) -> str:
    metric, name = key
    return metric if name is None else f"{name}.{metric}"


def _exact(
    predictions: Predictions, metric: str, name: str | None, value: float | None, member: npt.NDArray[np.intp]
) -> Interval | None:
    """Clopper and Pearson's interval of a share that is 0 or 1, each cluster counted once; None for other shares."""
    from scipy.stats import binomtest

    if value not in (0.0, 1.0):
        return None
    counted = np.ones(len(member), dtype=bool)
    if name is not None:
        counted = predictions.truth[:, predictions.class_names.index(name)]
        counted = counted if metric == "sensitivity" else ~counted
    trials = int(np.unique(member[counted]).size)
    bounds = binomtest(trials if value else 0, trials).proportion_ci(LEVEL, method="exact")
    return Interval((float(bounds.low), float(bounds.high)))


def _delong(predictions: Predictions, member: npt.NDArray[np.intp], report: dict[str, Any]) -> dict[str, Any]:
    intervals: dict[str, list[float] | None] = {}
    for index, name in enumerate(predictions.class_names):
        truth = predictions.truth[:, index]
        intervals[name] = None
        if truth.all() or not truth.any():
            continue  # the AUC itself is undefined, with its reason
        areas = delong_areas(truth, predictions.values[None, :, index], member)
        reason = areas.reason
        if areas.covariance is not None:
            found = delong_interval(float(areas.auc[0]), float(areas.covariance[0, 0]), LEVEL)
            intervals[name] = None if found is None else list(found)
            reason = "an AUC of 0 or 1, or one without variance, has no DeLong interval"
        if intervals[name] is None:
            report["undefined"][f"{name}.auc_delong"] = reason
    return intervals
