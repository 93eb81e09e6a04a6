"""Two models on the same images: differences of all metrics with intervals, and tests of AUC and accuracy.

Both models are resampled with the same draws of patients or images, so that what makes an image hard for both cancels.
Imports errors and the other metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import DataError
from medmamba_monai.metrics.binary import CLASS_METRICS
from medmamba_monai.metrics.bootstrap import CONSTANT, LEVEL, RESAMPLES, SEED, Interval, bootstrap_intervals
from medmamba_monai.metrics.delong import delong_areas, delong_test
from medmamba_monai.metrics.intervals import Predictions, delong_variance, numbered, resampling, unsound
from medmamba_monai.metrics.resampled import Key
from medmamba_monai.metrics.table import PredictionTable
from medmamba_monai.metrics.tasks import predictions_of, score_mode, score_names

__all__ = ["NOISE", "align", "compare_tables", "verdict"]

NOISE = "noise"
FEWEST_DISCORDANT = 6
"""Where only n images or patients tell the models apart, the exact p is 2^(1 - n) at best: 0.06 for five."""

COUNTED = (
    *("accuracy", "balanced_accuracy", "f1", "sensitivity", "specificity", "mcc", "kappa", "quadratic_kappa"),
    *("exact_match", "hamming_loss"),
)
"""Metrics of what is predicted, not of the probabilities."""
RIGHT = ("accuracy", "balanced_accuracy", "exact_match")
"""Those that depend on nothing but which images are right."""
_SHOWN = 3

Values = npt.NDArray[np.float64]


def align(first: PredictionTable, second: PredictionTable, names: tuple[str, str] = ("A", "B")) -> PredictionTable:
    """The second table with rows and classes in the order of the first.

    Args:
        first: predictions of one model.
        second: of the other.
        names: what messages call them.

    Raises:
        DataError: files, classes, labels or groups differ, or labels are missing; naming some that do.
    """
    if first.labels is None or second.labels is None:
        lacking = " and ".join(n for n, each in zip(names, (first, second), strict=True) if each.labels is None)
        raise DataError(f"{lacking}: no labels", remedy="compare predictions that evaluate wrote")
    for what, ours, theirs in (
        ("classes", first.class_names, second.class_names),
        ("files", first.files, second.files),
    ):
        alone = [_some(name, set(a) - set(b)) for name, a, b in zip(names, (ours, theirs), (theirs, ours), strict=True)]
        if any(alone):
            raise DataError(
                f"the {what} differ: {'; '.join(filter(None, alone))}", remedy="compare evaluations of the same cases"
            )
    place = {file: row for row, file in enumerate(second.files)}
    rows = [place[file] for file in first.files]
    columns = [second.class_names.index(name) for name in first.class_names]
    labels = second.labels[rows]
    labels = labels[:, columns] if labels.ndim == 2 else np.argsort(columns)[labels]
    wrong = (labels != first.labels).reshape(len(rows), -1).any(1)
    groups = None if second.groups is None else [second.groups[row] for row in rows]
    _refuse("labels", np.flatnonzero(wrong), first.files)
    if first.groups is not None and groups is not None:
        differ = [row for row, pair in enumerate(zip(first.groups, groups, strict=True)) if len({*pair}) > 1]
        _refuse("groups", differ, first.files)
    values = second.probabilities[np.ix_(rows, columns)]
    return PredictionTable(first.class_names, first.files, groups, labels, values, second.task, digit=second.digit)


def compare_tables(
    first: PredictionTable,
    second: PredictionTable,
    thresholds: tuple[float, float] = (0.5, 0.5),
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """All differences between two models, ready for JSON.

    Args:
        first: predictions of model A.
        second: of model B on the same images.
        thresholds: of A and B, with task "multilabel".
        resamples: of the paired bootstrap.
        seed: of the draw.

    Returns:
        task, n, class_names; metrics and per_class[name] (metric → a, b, difference = b - a, interval, verdict "a",
        "b", "noise" or None), auc_delong (class → a, b, difference, interval, p, verdict), mcnemar (only_a, only_b:
        images that one model alone has right, p), resampling, undefined (metric → reason). A metric that a model lacks
        is there with None, and so is the interval of one that fewer than `FEWEST_DISCORDANT` patients or images decide.

    Raises:
        DataError: as `align`.
    """
    second = align(first, second)
    clusters = first.groups if first.groups is not None else second.groups
    member = numbered(clusters, len(first.files))
    pair = [_predictions(table, threshold) for table, threshold in zip((first, second), thresholds, strict=True)]
    models = [each.resampled(member) for each in pair]

    def differences(weights: Values) -> dict[Key, Values]:
        a, b = (model(weights) for model in models)
        return {key: b[key] - a[key] for key in a if key in b}

    count = models[0].clusters
    whole = [model(np.ones((1, count))) for model in models]
    found = bootstrap_intervals(differences, count, resamples, LEVEL, seed)
    refused = unsound(found, pair[0], member) | _undecided(found, pair, member)
    undefined: dict[str, str] = {}
    result: dict[str, Any] = {
        "task": first.task,
        "n": len(first.files),
        "class_names": first.class_names,
        "metrics": {},
        "per_class": {name: {} for name in first.class_names},
    }
    for (metric, name), interval in found.items():
        place = result["metrics"] if name is None else result["per_class"][name]
        a, b = (float(values[metric, name][0]) for values in whole)
        interval = interval.without(refused[metric, name]) if (metric, name) in refused else interval
        place[metric] = _entry(metric, a, b, interval)
        if interval.bounds is None and place[metric]["verdict"] is None:
            undefined[metric if name is None else f"{name}.{metric}"] = interval.reason
    for metric, name in _lacking(found, pair[0]):
        place = result["metrics"] if name is None else result["per_class"][name]
        a, b = (float(values.get((metric, name), [np.nan])[0]) for values in whole)
        place[metric] = _entry(metric, a, b, Interval(None))
        undefined[metric if name is None else f"{name}.{metric}"] = _no_probabilities(first, second, pair)
    result["auc_delong"] = _delong(pair, member, undefined)
    result["mcnemar"] = _mcnemar(pair, count, undefined)
    result["resampling"] = {
        **resampling(clusters, count, resamples, seed),
        "delong": delong_variance(count, len(member)),
        "undefined_resamples": {
            metric if name is None else f"{name}.{metric}": each.undefined
            for (metric, name), each in found.items()
            if each.undefined
        },
    }
    result["undefined"] = undefined
    return result


def verdict(metric: str, interval: Sequence[float] | None) -> str | None:
    """Which model is better beyond noise, "a" or "b"; "noise" where the interval holds 0, None without one.

    Args:
        metric: its name, since of losses less is better.
        interval: of b - a.

    Example:
        >>> verdict("auc", [0.01, 0.2]), verdict("log_loss", [0.01, 0.2]), verdict("auc", [-0.1, 0.2])
        ('b', 'a', 'noise')
    """
    if interval is None:
        return None
    low, high = interval
    if low <= 0 <= high:
        return NOISE
    return "b" if (low > 0) == (score_mode(metric) == "max") else "a"


def _entry(metric: str, a: float, b: float, interval: Interval) -> dict[str, Any]:
    difference = b - a
    bounds = interval.listed
    same = difference == 0 and interval.reason == CONSTANT  # two equal models
    return {
        "a": _number(a),
        "b": _number(b),
        "difference": _number(difference),
        "interval": bounds,
        "verdict": NOISE if same else verdict(metric, bounds),
    }


def _undecided(
    keys: Mapping[Key, Interval], pair: Sequence[Predictions], member: npt.NDArray[np.intp]
) -> dict[Key, str]:
    """Metrics of what is predicted that hang on too few patients or images, and why."""
    truth, (a, b) = pair[0].truth, (each.called for each in pair)
    of_class = a != b
    anywhere = of_class.any(1)
    right = (truth == a).all(1) != (truth == b).all(1)
    found: dict[Key, str] = {}
    for metric, name in keys:
        differ = right if metric in RIGHT or (metric, pair[0].task) == ("sensitivity", "multiclass") else anywhere
        if name is not None:
            index = pair[0].class_names.index(name)
            counted = {"sensitivity": truth[:, index], "specificity": ~truth[:, index]}
            differ = of_class[:, index] & counted.get(metric, np.ones(len(truth), dtype=bool))
        count = np.unique(member[differ]).size
        if metric in COUNTED and count < FEWEST_DISCORDANT:
            found[metric, name] = f"the models differ on {count} groups or images: fewer than {FEWEST_DISCORDANT}"
    return found


def _lacking(found: Mapping[Key, Interval], predictions: Predictions) -> Iterator[Key]:
    """Metrics of the task that one model, or both, do not have: those of probabilities."""
    wanted: list[Key] = [(metric, None) for metric in score_names(predictions.task)]
    wanted += [(metric, name) for name in predictions.class_names for metric in CLASS_METRICS]
    yield from (key for key in wanted if key not in found)


def _no_probabilities(first: PredictionTable, second: PredictionTable, pair: Sequence[Predictions]) -> str:
    """Which model's rows are no probabilities, with the first of them."""
    reasons = []
    for side, table, each in zip("AB", (first, second), pair, strict=True):
        if not each.probabilities:
            row = int((_negative(table) | table.off).argmax())
            reasons.append(
                f"{side}: the probabilities of {table.files[row]} sum to {table.probabilities[row].sum():.4g}"
            )
    return "; ".join(reasons)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _predictions(table: PredictionTable, threshold: float) -> Predictions:
    options = {"threshold": threshold} if table.task == "multilabel" else {}
    found = predictions_of(table.task)(table.labels, table.probabilities, table.class_names, **options)
    if table.task == "multilabel":
        return found
    # a table of few digits is one of probabilities all the same
    return found._replace(probabilities=not (_negative(table) | table.off).any())


def _negative(table: PredictionTable) -> npt.NDArray[np.bool_]:
    return np.asarray((table.probabilities < 0).any(1))


def _delong(pair: Sequence[Predictions], member: npt.NDArray[np.intp], undefined: dict[str, str]) -> dict[str, Any]:
    """DeLong's paired test class by class, with Obuchowski's variance where groups have several images."""
    tests: dict[str, Any] = {}
    for index, name in enumerate(pair[0].class_names):
        truth = pair[0].truth[:, index]
        tests[name] = None
        if truth.all() or not truth.any():
            undefined[f"{name}.auc_delong"] = "every image has this class" if truth.all() else "no image has this class"
            continue
        areas = delong_areas(truth, np.stack([each.values[:, index] for each in pair]), member)
        found = delong_test(areas, LEVEL)
        if found is None:
            undefined[f"{name}.auc_delong"] = areas.reason or "the difference has no variance"
            continue
        bounds = [found.low, found.high]
        tests[name] = {
            "a": float(areas.auc[0]),
            "b": float(areas.auc[1]),
            "difference": found.difference,
            "interval": bounds,
            "p": found.p,
            "verdict": verdict("auc", bounds),
        }
    return tests


def _mcnemar(pair: Sequence[Predictions], clusters: int, undefined: dict[str, str]) -> dict[str, Any]:
    """Exact test of the images that one model alone has right; it takes images for independent."""
    from scipy.stats import binomtest

    a, b = ((each.truth == each.called).all(1) for each in pair)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = None
    if clusters < len(a):
        undefined["mcnemar"] = "groups have several images, which the test takes for independent"
    else:
        p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p": p}


def _some(name: str, alone: set[str]) -> str:
    """Some of what one table alone has."""
    if not alone:
        return ""
    shown = ", ".join(sorted(alone)[:_SHOWN])
    return f"only {name} has {shown}" + (f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else "")


def _refuse(what: str, rows: Sequence[int] | npt.NDArray[np.intp], files: Sequence[str]) -> None:
    if len(rows):
        shown = ", ".join(files[row] for row in rows[:_SHOWN])
        more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        raise DataError(f"the {what} of {shown}{more} differ", remedy="compare evaluations of the same data")
