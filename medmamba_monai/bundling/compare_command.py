"""The command line verb ``compare``. Imported by medmamba_monai.cli when the verb is used."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import ConfigError, DataError
from medmamba_monai.handlers.files import write_json
from medmamba_monai.metrics import PredictionTable, compare_tables, score_names
from medmamba_monai.metrics.bootstrap import RESAMPLES

__all__ = ["add_arguments", "read_predictions", "run", "told"]

WIDTH = 100
THRESHOLD = 0.5
TASKS = ("multiclass", "multilabel")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    where = "predictions.csv of an evaluation, or a folder with one"
    parser.add_argument("a", type=Path, metavar="A", help=where)
    parser.add_argument("b", type=Path, metavar="B", help=f"{where}, on the same cases")
    parser.add_argument("--out", type=Path, help="JSON file for all differences, class by class")
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, help="of the paired bootstrap; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap's draws; default: %(default)s")
    parser.add_argument(
        "--task",
        choices=TASKS,
        help="default: as metrics.json beside the table says, else multiclass where all labels and predictions are one"
        " class",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help=f"of multilabel predictions in A and B; default: as metrics.json beside the table says, else {THRESHOLD}",
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
    if arguments.threshold is not None and not 0 < arguments.threshold < 1:
        raise ConfigError(f"--threshold {arguments.threshold} lies outside 0 to 1", remedy="give a number between them")
    if arguments.out is not None:
        _check_out(arguments.out)
    first, first_at = read_predictions(arguments.a, arguments.task, arguments.threshold)
    second, second_at = read_predictions(arguments.b, arguments.task, arguments.threshold)
    if first.task != second.task:
        raise ConfigError(
            f"{arguments.a} is {first.task}, {arguments.b} is {second.task}", remedy="compare models of one task"
        )
    result = compare_tables(first, second, (first_at, second_at), arguments.resamples, arguments.seed)
    thresholds = [first_at, second_at] if first.task == "multilabel" else None
    result = {"a": str(arguments.a), "b": str(arguments.b), "thresholds": thresholds, **result}
    told(result)
    if arguments.out is not None:
        write_json(arguments.out, result)
        sys.stdout.write(f"wrote {arguments.out}\n")
    return 0


def _check_out(file: Path) -> None:
    """Refuse a file that could not be written, before anything is computed."""
    if file.is_dir():
        raise ConfigError("is a folder", where=f"--out {file}", remedy="name a file, such as difference.json")
    if not file.parent.is_dir():
        raise ConfigError("the folder does not exist", where=f"--out {file}", remedy="create it")


def read_predictions(
    path: Path, task: str | None = None, threshold: float | None = None
) -> tuple[PredictionTable, float]:
    """A table of predictions and the threshold of its calls.

    Args:
        path: predictions.csv, or a folder that holds one.
        task: "multiclass" or "multilabel"; None: as metrics.json beside the table says, else as the table shows.
        threshold: of multilabel predictions; None: as metrics.json beside the table says, else 0.5.

    Raises:
        DataError: there is no table, or not one of this task: its predictions are not those that task and threshold
            give, or its columns not the classes in metrics.json.
    """
    file = path / "predictions.csv" if path.is_dir() else path
    beside = file.with_name("metrics.json")
    report = _report(beside)
    if task is None and report:
        task = report.get("task", "multiclass")
        if task not in TASKS:
            raise DataError(f"task {task!r} is neither {' nor '.join(TASKS)}", where=str(beside), remedy="give --task")
    if threshold is None:
        threshold = report.get("threshold", THRESHOLD)
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold < 1:
            raise DataError(
                f"threshold {threshold!r} is no number between 0 and 1", where=str(beside), remedy="give --threshold"
            )
    table = PredictionTable.read(file, task)
    known = report.get("class_names", table.class_names)
    if not isinstance(known, list) or {str(name) for name in known} != set(table.class_names):
        raise DataError(
            f"its classes are {table.class_names}, those in metrics.json beside it {known}",
            where=str(file),
            remedy="leave out columns that are no classes, or evaluate again",
        )
    _check_calls(table, float(threshold), file)
    return table, float(threshold)


def _report(beside: Path) -> dict[str, Any]:
    if not beside.is_file():
        return {}
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"is no JSON: {error}", where=str(beside), remedy="evaluate again") from error
    return content if isinstance(content, dict) else {}


def _check_calls(table: PredictionTable, threshold: float, file: Path) -> None:
    """Refuse a task or threshold that would give other predictions than the table has."""
    wrong = _disagreeing(table, threshold + np.array([-1, 1]) * (table.digit + 1e-7))
    if not wrong.any():
        return
    how, remedy = "the most probable class", "give --task multilabel, or evaluate again"
    if table.task == "multilabel":
        how = f"what reaches the threshold {threshold:g}"
        remedy = "give --threshold as it was in the evaluation, or --task multiclass, or keep metrics.json beside it"
    row = int(wrong.argmax())
    raise DataError(
        f"{int(wrong.sum())} of {len(wrong)} predictions are not {how}, first that of {table.files[row]}",
        where=str(file),
        remedy=remedy,
    )


def _disagreeing(table: PredictionTable, band: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """(N,) whether a prediction is another than the probabilities give, leaving aside what rounding decides."""
    values, called = table.probabilities, table.called
    if called is None:
        return np.zeros(len(values), dtype=bool)
    if table.task == "multilabel":
        return np.asarray((((called == 1) & (values < band[0])) | ((called == 0) & (values > band[1]))).any(1))
    chosen = np.take_along_axis(values, called[:, None], axis=1)[:, 0]
    return np.asarray(chosen < values.max(1) - np.ptp(band) / 2)


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
    console.print(f"task {result['task']}, {_called(result)}")
    table = Table(box=None, pad_edge=False)
    for column in ("metric", "A", "B", "B - A", "interval", "verdict"):
        table.add_column(column, justify="left" if column in ("metric", "verdict") else "right", no_wrap=True)
    for row in _rows(result):
        table.add_row(*(escape(cell) for cell in row))
    console.print(table, soft_wrap=False)
    for line in _conclusions(result):
        console.print(escape(line))


def _called(result: dict[str, Any]) -> str:
    """From where on a class is predicted."""
    if result["thresholds"] is None:
        return "the most probable class is predicted"
    return "thresholds {:g} (A) and {:g} (B)".format(*result["thresholds"])


def _rows(result: dict[str, Any]) -> Iterator[list[str]]:
    for name in _shown(result):
        yield _row(name.replace("_", " "), result["metrics"][name])
    for name, test in result["auc_delong"].items():
        if test is not None:
            yield _row(f"auc of {name}, DeLong, p = {test['p']:.2g}", test)


def _shown(result: dict[str, Any]) -> list[str]:
    """All metrics in their order; the mean sensitivity is there as balanced accuracy."""
    again = {"sensitivity"} if "balanced_accuracy" in result["metrics"] else set()
    return [name for name in score_names(result["task"]) if name in result["metrics"] and name not in again]


def _row(name: str, entry: dict[str, Any]) -> list[str]:
    numbers = ["undefined" if entry[key] is None else f"{entry[key]:.4f}" for key in ("a", "b")]
    difference = "" if entry["difference"] is None else f"{entry['difference']:+.4f}"
    bounds = "" if entry["interval"] is None else "[{:+.4f}, {:+.4f}]".format(*entry["interval"])
    words = {"a": "A is better", "b": "B is better", "noise": "noise", None: "no interval"}
    return [name, *numbers, difference, bounds, words[entry["verdict"]]]


def _conclusions(result: dict[str, Any]) -> Iterator[str]:
    """What the table amounts to, in words."""
    verdicts = {name: result["metrics"][name]["verdict"] for name in _shown(result)}
    test = result["mcnemar"]
    judged = "McNemar's exact p = {:.2g}".format(test["p"]) if test["p"] is not None else result["undefined"]["mcnemar"]
    yield f"A alone is right on {test['only_a']} images, B alone on {test['only_b']} ({judged})."
    yield f"Variance of DeLong's test: {result['resampling']['delong']}."
    missing = [name.replace("_", " ") for name, each in verdicts.items() if each is None]
    if missing:
        yield f"No interval for {', '.join(missing)}: {_reasons(result, verdicts)}."
    better = {side: [name.replace("_", " ") for name, each in verdicts.items() if each == side] for side in "ab"}
    if len(missing) == len(verdicts):
        yield "Nothing could be judged: no score has an interval."
    elif not better["a"] and not better["b"]:
        which = " in the scores that have an interval" if missing else ""
        yield f"The difference is noise{which}: no interval of a difference over all classes leaves out 0."
    for side, names in better.items():
        if names:
            yield f"{side.upper()} is better beyond noise in {', '.join(names)}."
    if better["a"] or better["b"]:
        yield (f"{len(verdicts)} metrics were looked at, each at its own level; decide by the one chosen beforehand.")


def _reasons(result: dict[str, Any], verdicts: dict[str, Any]) -> str:
    reasons = [result["undefined"].get(name) for name, each in verdicts.items() if each is None]
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))
