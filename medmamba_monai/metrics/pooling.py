"""Predictions of several trainings put together, and how far their scores spread. Imports the table and errors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medmamba_monai.errors import DataError
from medmamba_monai.metrics.table import PredictionTable

__all__ = ["average_tables", "join_tables", "score_values", "spread_of"]

COUNTS = ("n", "n_predicted")


def join_tables(tables: Sequence[PredictionTable]) -> PredictionTable:
    """All rows of tables of different images, as the folds of a cross-validation are.

    Args:
        tables: with the same classes and task, all with or all without labels, no file in two of them.

    Raises:
        DataError: they are not.
    """
    first = _checked(tables)
    files = [file for table in tables for file in table.files]
    if len(set(files)) < len(files):
        again = next(file for file in files if files.count(file) > 1)
        raise DataError(f"'{again}' is in two tables", remedy="join predictions of different images")
    known = any(table.groups is not None for table in tables)
    labels = [table.labels for table in tables if table.labels is not None]
    return PredictionTable(
        first.class_names,
        files,
        [group for table in tables for group in table.clusters] if known else None,
        np.concatenate(labels) if labels else None,
        np.concatenate([table.probabilities for table in tables]),
        first.task,
    )


def average_tables(tables: Sequence[PredictionTable]) -> PredictionTable:
    """The ensemble of several networks: the mean of their probabilities for the same images.

    Args:
        tables: with the same classes, task, files, groups and labels; files in any order.

    Raises:
        DataError: they are not of the same images.
    """
    first = _checked(tables)
    position = {file: index for index, file in enumerate(first.files)}
    total = np.zeros_like(first.probabilities)
    for number, table in enumerate(tables, start=1):
        if sorted(table.files) != sorted(first.files):
            odd = sorted(set(table.files) ^ set(first.files))[0]
            raise DataError(f"table {number} is of other images: '{odd}'", remedy="predict the same part with all")
        order = [position[file] for file in table.files]
        if first.labels is not None and table.labels is not None and (first.labels[order] != table.labels).any():
            raise DataError(f"table {number} has other labels", remedy="predict the same data with all")
        total[order] += table.probabilities
    return PredictionTable(first.class_names, first.files, first.groups, first.labels, total / len(tables), first.task)


def spread_of(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and sample standard deviation (divisor n - 1) of one score over several trainings.

    Args:
        values: the scores; None where one is undefined.

    Returns:
        mean, sd and values; mean is None where any value is, sd also for a single value.

    Example:
        >>> spread_of([0.5, 0.7])["mean"], round(spread_of([0.5, 0.7])["sd"], 4), spread_of([0.5, None])["mean"]
        (0.6, 0.1414, None)
    """
    kept = [None if value is None or not math.isfinite(value) else float(value) for value in values]
    known = [value for value in kept if value is not None]
    whole = bool(kept) and len(known) == len(kept)
    return {
        "mean": statistics.fmean(known) if whole else None,
        "sd": statistics.stdev(known) if whole and len(known) > 1 else None,
        "values": kept,
    }


def score_values(report: Mapping[str, Any]) -> dict[str, float | None]:
    """The scores over all classes in a report: its numbers by name, None where undefined; no counts.

    Example:
        >>> score_values({"n": 3, "auc": None, "accuracy": 0.5, "per_class": {}, "undefined": {"auc": "one class"}})
        {'auc': None, 'accuracy': 0.5}
    """
    undefined = report.get("undefined", {})
    return {
        name: None if value is None else float(value)
        for name, value in report.items()
        if name not in COUNTS
        and not isinstance(value, bool)
        and (isinstance(value, (int, float)) or (value is None and name in undefined))
    }


def _checked(tables: Sequence[PredictionTable]) -> PredictionTable:
    if not tables:
        raise DataError("there are no predictions to put together")
    first = tables[0]
    for number, table in enumerate(tables, start=1):
        for what in ("class_names", "task"):
            if getattr(table, what) != getattr(first, what):
                raise DataError(f"table {number} has {what} {getattr(table, what)}, the first {getattr(first, what)}")
        if (table.labels is None) != (first.labels is None):
            raise DataError(f"table {number} and the first do not both have labels")
    return first
