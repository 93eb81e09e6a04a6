"""Turns metrics.json into MLflow metrics: one flat name a number, grouped so that MLflow's pages stay readable.

MLflow shows one chart a metric, in sections named by what precedes a slash. The scores over all classes stand without
one; bounds of intervals, scores of single classes and the numbers of other analyses have sections of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["flat_scores"]

LEFT_OUT = ("averaged", "resampling", "undefined")  # settings and reasons, which metrics.json keeps
INTERVAL = "_interval"
DEFAULT_LEVEL = 0.95
LONGEST_NAME = 250  # what MLflow's databases hold

Path = tuple[str, ...]


def flat_scores(report: Mapping[str, Any], part: str) -> dict[str, float]:
    """Every number of a report under a name that MLflow takes.

    ``auc`` of the part "test" becomes ``test_auc``, the bounds of its 95 % interval ``test_intervals/auc_low95`` and
    ``test_intervals/auc_high95``, the sensitivity for a class ``test_per_class/sensitivity.benign``, a number of
    another dictionary ``test_conformal/coverage``. What is undefined (null) has no metric; texts, switches, tables and
    curves stay in metrics.json.

    Args:
        report: content of metrics.json.
        part: name of the data's part, the first word of every metric.

    Example:
        >>> report = {"auc": 0.9, "intervals": {"auc": [0.8, 0.95]}, "per_class": {"cyst": {"f1": 0.5, "auc": None}}}
        >>> flat_scores(report, "test")  # doctest: +NORMALIZE_WHITESPACE
        {'test_auc': 0.9, 'test_intervals/auc_low95': 0.8, 'test_intervals/auc_high95': 0.95,
         'test_per_class/f1.cyst': 0.5}
    """
    resampling = report.get("resampling")
    level = resampling.get("level", DEFAULT_LEVEL) if isinstance(resampling, Mapping) else DEFAULT_LEVEL
    percent = f"{100 * float(level):g}"
    flat: dict[str, float] = {}
    for path, value in _numbers({key: item for key, item in report.items() if key not in LEFT_OUT}, percent):
        flat[_unused(_name(path, part)[:LONGEST_NAME], flat)] = value
    return flat


def _numbers(report: Any, percent: str, path: Path = ()) -> Iterator[tuple[Path, float]]:
    """Numbers with the keys that lead to them; an interval gives two."""
    if isinstance(report, Mapping):
        for key, value in report.items():
            yield from _numbers(value, percent, (*path, str(key)))
    elif _is_number(report):
        yield path, float(report)
    elif _is_interval(path, report):
        *above, name = path
        for bound, value in zip(("low", "high"), report, strict=True):
            yield (*above, f"{name.removesuffix(INTERVAL)}_{bound}{percent}"), float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_interval(path: Path, value: Any) -> bool:
    named = path[-1].endswith(INTERVAL) or "intervals" in path[:-1] or path[0] == "auc_delong"
    return named and isinstance(value, Sequence) and len(value) == 2 and all(map(_is_number, value))


def _name(path: Path, part: str) -> str:
    """Metric before class, so that a metric's classes stand side by side."""
    path = tuple(_plain(key) for key in path)
    if len(path) >= 3 and path[0] == "per_class":
        _, class_name, *inner = path
        section = "per_class_intervals" if "intervals" in inner else "per_class"
        return f"{part}_{section}/{'.'.join(key for key in inner if key != 'intervals')}.{class_name}"
    section, *inner = path
    return f"{part}_{section}/{'.'.join(inner)}" if inner else f"{part}_{section}"


def _plain(key: str) -> str:
    """A key without what MLflow refuses or takes for the start of a section."""
    return re.sub(r"[^\w\-. ]", "_", key)


def _unused(name: str, taken: Mapping[str, float]) -> str:
    """The name, with a number where two class names became one."""
    number, tried = 2, name
    while tried in taken:
        tried = f"{name}_{number}"
        number += 1
    return tried
