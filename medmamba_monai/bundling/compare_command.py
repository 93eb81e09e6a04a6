"""The command line verb ``compare``. Imported by medmamba_monai.cli when the verb is used."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medmamba_monai.errors import ConfigError, DataError
from medmamba_monai.handlers.files import write_json
from medmamba_monai.metrics import PredictionTable, compare_tables
from medmamba_monai.metrics.bootstrap import RESAMPLES

__all__ = ["add_arguments", "read_predictions", "run", "told"]

WIDTH = 100
SUM_TOLERANCE = 1e-3
SHOWN = {
    "multiclass": ("accuracy", "balanced_accuracy", "auc", "average_precision", "f1", "mcc", "kappa",
                   "quadratic_kappa", "brier", "log_loss", "ece"),
    "multilabel": ("auc", "average_precision", "f1", "sensitivity", "specificity", "mcc", "exact_match",
                   "hamming_loss", "brier", "log_loss", "ece"),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    where = "predictions.csv of an evaluation, or a folder with one"
    parser.add_argument("a", type=Path, metavar="A", help=where)
    parser.add_argument("b", type=Path, metavar="B", help=f"{where}, on the same cases")
    parser.add_argument("--out", type=Path, help="JSON file for all differences, class by class")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of the paired bootstrap; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap's draws; default: %(default)s")
    parser.add_argument(
        "--task",
        choices=["multiclass", "multilabel"],
        help="default: as metrics.json beside the table says, else as its rows sum to one or not",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare, say what is noise, and return the exit code.

    Raises:
        ConfigError: options that make no sense, or the tables are of different tasks.
        DataError: the tables cannot be read, or are not of the same cases.
    """
    if arguments.resamples < 100:
        raise ConfigError(f"--resamples {arguments.resamples} is too few", remedy="give 100 or more")
    if arguments.seed < 0:
        raise ConfigError(f"--seed {arguments.seed} is negative", remedy="give 0 or more")
    (first, first_at), (second, second_at) = (read_predictions(path, arguments.task) for path in (arguments.a, arguments.b))
    if first.task != second.task:
        raise ConfigError(
            f"{arguments.a} is {first.task}, {arguments.b} is {second.task}", remedy="compare models of one task"
        )
    result = compare_tables(first, second, (first_at, second_at), arguments.resamples, arguments.seed)
    result = {"a": str(arguments.a), "b": str(arguments.b), **result}
    told(result)
    if arguments.out is not None:
        if not arguments.out.parent.is_dir():
            raise ConfigError("the folder does not exist", where=f"--out {arguments.out}", remedy="create it")
        write_json(arguments.out, result)
        sys.stdout.write(f"wrote {arguments.out}\n")
    return 0


def read_predictions(path: Path, task: str | None = None) -> tuple[PredictionTable, float]:
    """A table of predictions and the threshold of its calls.

    Args:
        path: predictions.csv, or a folder that holds one.
        task: "multiclass" or "multilabel"; None: as metrics.json beside the table says, else multiclass where all rows
            sum to one.

    Raises:
        DataError: there is no table, or not one of this task.
    """
    file = path / "predictions.csv" if path.is_dir() else path
    report = _report_beside(file)
    if task is None and report:
        task = str(report.get("task", "multiclass"))
    if task is None:
        sums = _without_labels(file).sum(1)
        task = "multiclass" if (np.abs(sums - 1) <= SUM_TOLERANCE).all() else "multilabel"
    return PredictionTable.read(file, task), float(report.get("threshold", 0.5))


def _report_beside(file: Path) -> dict[str, Any]:
    beside = file.with_name("metrics.json")
    if not beside.is_file():
        return {}
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"is no JSON: {error}", where=str(beside), remedy="evaluate again") from error
    return content if isinstance(content, dict) else {}


def _without_labels(file: Path) -> Any:
    return PredictionTable.read(file, "multilabel").probabilities


def told(result: dict[str, Any]) -> None:
    """Print a table of differences and what they amount to."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, soft_wrap=True)
    how = result["resampling"]
    console.print(f"A: {escape(result['a'])}\nB: {escape(result['b'])}")
    console.print(
        f"{result['n']} images, {len(result['class_names'])} classes; {how['level']:.0%} intervals from"
        f" {how['resamples']} paired resamples of {how['clusters']} {how['unit']}s"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("metric", "A", "B", "B - A", "interval", "verdict"):
        table.add_column(column, justify="left" if column in ("metric", "verdict") else "right", no_wrap=True)
    for row in _rows(result):
        table.add_row(*(escape(cell) for cell in row))
    console.print(table, soft_wrap=False)
    for line in _conclusions(result):
        console.print(escape(line))


def _rows(result: dict[str, Any]) -> Iterator[list[str]]:
    for name in SHOWN[result["task"]]:
        if name in result["metrics"]:
            yield _row(name.replace("_", " "), result["metrics"][name])
    for name, test in result["auc_delong"].items():
        if test is not None:
            yield _row(f"auc of {name}, DeLong, p = {test['p']:.2g}", test)


def _row(name: str, entry: dict[str, Any]) -> list[str]:
    numbers = ["undefined" if entry[key] is None else f"{entry[key]:.4f}" for key in ("a", "b")]
    difference = "" if entry["difference"] is None else f"{entry['difference']:+.4f}"
    bounds = "" if entry["interval"] is None else "[{:+.4f}, {:+.4f}]".format(*entry["interval"])
    words = {"a": "A is better", "b": "B is better", "noise": "noise", None: "no interval"}
    return [name, *numbers, difference, bounds, words[entry["verdict"]]]


def _conclusions(result: dict[str, Any]) -> Iterator[str]:
    """What the table amounts to, in words."""
    verdicts = {name: result["metrics"][name]["verdict"] for name in SHOWN[result["task"]] if name in result["metrics"]}
    test = result["mcnemar"]
    judged = "McNemar's exact p = {:.2g}".format(test["p"]) if test["p"] is not None else result["undefined"]["mcnemar"]
    yield f"A alone is right on {test['only_a']} images, B alone on {test['only_b']} ({judged})."
    if "Obuchowski" in result.get("delong", ""):
        yield "DeLong's test uses Obuchowski's variance for groups of images."
    missing = [name.replace("_", " ") for name, each in verdicts.items() if each is None]
    if missing:
        yield f"No interval for {', '.join(missing)}: {_reasons(result, verdicts)}."
    better = {side: [name.replace("_", " ") for name, each in verdicts.items() if each == side] for side in "ab"}
    if not better["a"] and not better["b"]:
        yield "The difference is noise: no interval of a difference over all classes leaves out 0."
    for side, names in better.items():
        if names:
            yield f"{side.upper()} is better beyond noise in {', '.join(names)}."
    if better["a"] or better["b"]:
        yield (
            f"{len(verdicts)} metrics were looked at, each at its own level; decide by the one chosen beforehand."
        )


def _reasons(result: dict[str, Any], verdicts: dict[str, Any]) -> str:
    reasons = [result["undefined"].get(name) for name, each in verdicts.items() if each is None]
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))
