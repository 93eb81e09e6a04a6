"""Metrics, their intervals and what makes them trustworthy, as tables and sentences. Numbers are metrics.json's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmamba_monai.figures.numbers import class_interval, reason_for
from medmamba_monai.report.content import Card, Table

__all__ = [
    "LABELS",
    "class_table",
    "headline",
    "metrics_table",
    "number",
    "resampling_sentence",
    "safety_points",
    "threshold_table",
]

LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC (mean over classes)",
    "average_precision": "average precision (mean over classes)",
    "f1": "F1 (mean over classes)",
    "sensitivity": "sensitivity (mean over classes)",
    "specificity": "specificity (mean over classes)",
    "mcc": "Matthews correlation",
    "kappa": "Cohen's kappa",
    "quadratic_kappa": "quadratic kappa (ordered classes only)",
    "exact_match": "every class right",
    "hamming_loss": "wrong single answers (smaller is better)",
    "brier": "Brier score (smaller is better)",
    "log_loss": "log loss (smaller is better)",
    "ece": "expected calibration error (smaller is better)",
}
CLASS_LABELS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "mcc": "MCC",
}
HEADLINES = {
    "multiclass": ("balanced_accuracy", "auc", "accuracy"),
    "multilabel": ("auc", "average_precision", "exact_match"),
}


def number(value: float | None) -> str:
    """A metric with three digits.

    Example:
        >>> number(0.81249), number(None)
        ('0.812', 'undefined')
    """
    return "undefined" if value is None else f"{value:.3f}"


def headline(metrics: Mapping[str, Any], task: str) -> list[Card]:
    """The few numbers that stand first."""
    cards = []
    for name in HEADLINES[task]:
        if name in metrics:
            interval = _interval(metrics, name)
            note = f"95 % interval {interval}" if interval else "no interval"
            if metrics[name] is None:
                note = reason_for(metrics, name)
            cards.append(Card(LABELS[name].split(" (")[0], number(metrics[name]), note))
    cards.append(Card("images", str(metrics.get("n", "")), f"{len(metrics.get('class_names', []))} classes"))
    return cards


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Every single number of metrics.json."""
    known = [name for name in LABELS if name in metrics]
    others = [
        name for name, value in metrics.items() if isinstance(value, float) and name not in (*LABELS, "threshold")
    ]
    rows = [
        [LABELS.get(name, name), number(metrics[name]), _interval(metrics, name) or "-"] for name in (*known, *others)
    ]
    return Table("All images", ["metric", "value", "95 % interval"], rows)


def class_table(metrics: Mapping[str, Any]) -> Table:
    """Every class's numbers against the rest."""
    classes = metrics.get("per_class", {})
    columns = [name for name in CLASS_LABELS if any(name in entry for entry in classes.values())]
    rows = []
    for name, entry in classes.items():
        cells = []
        for column in columns:
            interval = class_interval(metrics, name, column)
            bounds = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
            cells.append(number(entry.get(column)) + bounds)
        rows.append([name, str(entry.get("support", "")), *cells])
    return Table("Each class against the rest", ["class", "images", *(CLASS_LABELS[name] for name in columns)], rows)


def resampling_sentence(metrics: Mapping[str, Any]) -> str:
    """How the intervals came about."""
    drawn = metrics.get("resampling")
    if not drawn:
        return "metrics.json has no intervals; evaluate again with this version to get them."
    unit = "patients or other groups" if drawn.get("unit") == "group" else "images"
    level = f"{100 * float(drawn.get('level', 0.95)):.0f}"
    return (
        f"Intervals ({level} %) by a bootstrap over {drawn.get('clusters', '')} {unit}, {drawn.get('resamples', '')} "
        f"resamples, seed {drawn.get('seed', 0)}. Bands in the figures resample the same units point by point."
    )


def safety_points(metrics: Mapping[str, Any]) -> list[str]:
    """Calibration, conformal sets, referral and out-of-distribution scores, where the evaluation has them."""
    points = []
    found = metrics.get("calibration") or {}
    if found.get("temperature") is not None:
        used = "applied to these predictions" if found.get("applied") else "not applied to these predictions"
        points.append(
            f"Temperature {number(found['temperature'])}, fitted on the validation part and {used}: expected "
            f"calibration error {number(found.get('ece_before'))} before, {number(found.get('ece_after'))} after; "
            f"log loss {number(found.get('log_loss_before'))} before, {number(found.get('log_loss_after'))} after."
        )
    found = metrics.get("conformal") or {}
    if found.get("coverage") is not None:
        bounds = found.get("coverage_interval")
        interval = f" [{number(bounds[0])}, {number(bounds[1])}]" if bounds else ""
        points.append(
            f"Conformal sets meant to hold the truth in {1 - float(found.get('alpha', 0.1)):.0%} of images hold it in "
            f"{number(found['coverage'])}{interval}, with {number(found.get('mean_set_size'))} classes on average."
        )
    found = metrics.get("referral") or {}
    risks = [f"{number(risk)} with {float(kept):.0%} kept" for kept, risk in (found.get("at") or {}).items()]
    if risks:
        points.append("Share of wrong answers when the least sure are referred: " + ", ".join(risks) + ".")
    points += _out_of_distribution(metrics.get("ood") or {})
    return points


def threshold_table(metrics: Mapping[str, Any]) -> Table | None:
    """Each class at the threshold that was chosen on the validation part; None where there is none."""
    found = metrics.get("thresholded") or {}
    columns = ("threshold", "sensitivity", "specificity", "precision", "f1")
    rows = [
        [name, *(number(entry.get(column)) for column in columns)] for name, entry in found.get("per_class", {}).items()
    ]
    caption = f"At thresholds chosen on the validation part ({found.get('criterion', 'criterion not told')})"
    return Table(caption, ["class", *(CLASS_LABELS.get(column, column) for column in columns)], rows) if rows else None


def _out_of_distribution(found: Mapping[str, Any]) -> list[str]:
    method = found.get("method", "method not told")
    words = {"share_above_1": "share of images beyond the 95th percentile of validation", "auroc": "AUROC"}
    return [
        f"Out of distribution ({method}): {words.get(name, name)} {number(value)}."
        for name, value in found.items()
        if _is_number(value) and name != "median"
    ]


def _interval(metrics: Mapping[str, Any], name: str) -> str:
    bounds = (metrics.get("intervals") or {}).get(name)
    return "" if not bounds or None in bounds else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
