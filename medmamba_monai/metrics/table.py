"""Predictions as predictions.csv has them: read back for comparisons, figures and reports. Imports errors only."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import DataError

__all__ = ["PredictionTable"]

NOT_CLASSES = ("file", "group", "label", "prediction", "prediction_set", "ood_score", "fold")
SEPARATOR = "|"
NO_FINDING = "No Finding"
SUM_TOLERANCE = 1e-3

Row = dict[str, str]


@dataclass(frozen=True)
class PredictionTable:
    """The rows of a predictions.csv.

    Attributes:
        class_names: C names, in the order of the columns.
        files: N file names.
        groups: N patients or other groups that images belong to, an image without one stands for itself; None where
            the table has no such column.
        labels: (N,) true class numbers, with task "multilabel" (N, C) of 0 and 1; None where the table has none.
        probabilities: (N, C).
        task: "multiclass" or "multilabel".
        called: what the column "prediction" says, in the form of labels; None for tables that were not read.
        digit: what the last digit of the probabilities is worth, as far as the file has them.
    """

    class_names: list[str]
    files: list[str]
    groups: list[str] | None
    labels: npt.NDArray[np.int64] | None
    probabilities: npt.NDArray[np.float64]
    task: str = "multiclass"
    called: npt.NDArray[np.int64] | None = None
    digit: float = 0.0

    @property
    def clusters(self) -> list[str]:
        """What is to be resampled together: the groups where known, else every file by itself."""
        return self.files if self.groups is None else self.groups

    @property
    def off(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the probabilities of an image do not sum to one but for what rounding takes."""
        return _off(self.probabilities, self.digit)

    @classmethod
    def read(cls, path: str | Path, task: str | None = "multiclass") -> PredictionTable:
        """Read what `handlers.PredictionWriter` wrote.

        Args:
            path: predictions.csv.
            task: "multiclass" or "multilabel"; None: multiclass where every label and prediction names one class and
                most rows sum to one but for the digits left out.

        Raises:
            DataError: it is missing or no such table: naming the column or row.
        """
        try:
            with Path(path).open(newline="", encoding="utf-8-sig") as file:  # Excel begins with a mark of byte order
                lines = list(csv.reader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(
                f"the predictions cannot be read: {error}", where=str(path), remedy="evaluate or predict first"
            ) from error
        columns, rows = _cells(lines, path)
        names = [name for name in columns if name not in NOT_CLASSES]
        if "file" not in columns or "prediction" not in columns or len(names) < 2 or not rows:
            raise DataError(
                f"no table of predictions: columns {columns}, {len(rows)} rows",
                where=str(path),
                remedy="give a predictions.csv that evaluate or inference wrote",
            )
        files = [row["file"] for row in rows]
        if len(set(files)) < len(files):
            again = next(name for name in files if files.count(name) > 1)
            raise DataError(f"'{again}' occurs twice", where=str(path))
        groups = [row["group"] or row["file"] for row in rows] if "group" in columns else None
        values, digit = _probabilities(rows, names, path), _last_digit(rows, names)
        task = _task(rows, names, values, digit, path) if task is None else task
        _refuse_other_columns(rows, names, values, digit, task, path)
        labels, called = (
            np.array([_label(row[column], names, task, f"{path}, {row['file']}", column) for row in rows])
            if column in columns
            else None
            for column in ("label", "prediction")
        )
        return cls(names, files, groups, labels, values, task, called, digit)


def _cells(lines: list[list[str]], path: str | Path) -> tuple[list[str], list[Row]]:
    """Columns, and rows by column; every row has as many cells as there are columns."""
    columns = lines[0] if lines else []
    if len(set(columns)) < len(columns):
        again = next(name for name in columns if columns.count(name) > 1)
        raise DataError(f"column '{again}' occurs twice", where=str(path))
    rows = []
    for number, cells in enumerate(lines[1:], start=2):  # the header is row 1, as spreadsheets count
        if cells and len(cells) != len(columns):
            raise DataError(
                f"row {number} has {len(cells)} cells, the header has {len(columns)}",
                where=str(path),
                remedy="evaluate again, or mend the file",
            )
        if cells:
            rows.append(dict(zip(columns, cells, strict=True)))
    return columns, rows


def _last_digit(rows: list[Row], names: list[str]) -> float:
    """What the last digit of the probabilities is worth: 0.001 for a table with 0.25 and 0.125, 0 for whole numbers."""
    exponent = min(int(Decimal(row[name]).as_tuple().exponent) for row in rows for name in names)
    return 10.0**exponent if exponent < 0 else 0.0


def _off(values: npt.NDArray[np.float64], digit: float) -> npt.NDArray[np.bool_]:
    """(N,) whether rows sum to one but for what rounding takes: half a digit a class."""
    return np.asarray(np.abs(values.sum(1) - 1) > SUM_TOLERANCE + digit / 2 * values.shape[1])


def _named(rows: list[Row]) -> list[str]:
    return [row[column] for row in rows for column in ("label", "prediction") if column in row]


def _task(rows: list[Row], names: list[str], values: npt.NDArray[np.float64], digit: float, path: str | Path) -> str:
    if not set(_named(rows)) <= set(names):
        return "multilabel"
    if _off(values, digit).mean() > 0.5:
        raise DataError(
            "every image has one class, but the probabilities do not sum to one",
            where=str(path),
            remedy="say which task it is with --task",
        )
    return "multiclass"


def _refuse_other_columns(
    rows: list[Row], names: list[str], values: npt.NDArray[np.float64], digit: float, task: str, path: str | Path
) -> None:
    """Refuse columns of numbers that are no classes, as far as it shows: a sure class is predicted by its name."""
    told = {name for cell in _named(rows) for name in (cell, *cell.split(SEPARATOR))}
    extra = [index for index, name in enumerate(names) if name not in told]
    wrong = [index for index in extra if (values[:, index] == 1).any()]
    if not wrong and task == "multiclass" and _off(values, digit).any():
        wrong = [] if _off(np.delete(values, extra, axis=1), digit).any() else extra
    if wrong:
        raise DataError(
            f"no label and no prediction names {', '.join(repr(names[index]) for index in wrong)}: not a class",
            where=str(path),
            remedy="leave out columns that are no probabilities of a class",
        )


def _label(text: str, names: list[str], task: str, where: str, what: str = "label") -> int | list[int]:
    if task == "multiclass":
        if text not in names:
            raise DataError(f"{what} '{text}' is none of the classes {names}", where=where)
        return names.index(text)
    nothing = text == "" or (text == NO_FINDING and NO_FINDING not in names)
    found = set() if nothing else set(text.split(SEPARATOR))
    if not found <= set(names):
        raise DataError(f"{what} '{text}' names none of the classes {names}", where=where)
    return [int(name in found) for name in names]


def _probabilities(rows: list[Row], names: list[str], path: str | Path) -> npt.NDArray[np.float64]:
    values = np.empty((len(rows), len(names)))
    for index, row in enumerate(rows):
        for column, name in enumerate(names):
            try:
                values[index, column] = float(row[name])
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"'{row[name]}' is no probability", where=f"{path}, {row['file']}, column {name}"
                ) from error
    if not (np.isfinite(values).all() and (values >= 0).all() and (values <= 1 + 1e-3).all()):
        worst = int(np.argmax(~(np.isfinite(values) & (values >= 0) & (values <= 1 + 1e-3)).all(axis=1)))
        raise DataError("values that are no probabilities", where=f"{path}, {rows[worst]['file']}")
    return values
