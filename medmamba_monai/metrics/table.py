"""Predictions as predictions.csv has them: read back for comparisons, figures and reports. Imports errors only."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import DataError

__all__ = ["PredictionTable"]

NOT_CLASSES = ("file", "group", "label", "prediction", "prediction_set", "ood_score", "fold")
SEPARATOR = "|"
NO_FINDING = "No Finding"


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
    """

    class_names: list[str]
    files: list[str]
    groups: list[str] | None
    labels: npt.NDArray[np.int64] | None
    probabilities: npt.NDArray[np.float64]
    task: str = "multiclass"

    @property
    def clusters(self) -> list[str]:
        """What is to be resampled together: the groups where known, else every file by itself."""
        return self.files if self.groups is None else self.groups

    @classmethod
    def read(cls, path: str | Path, task: str = "multiclass") -> PredictionTable:
        """Read what `handlers.PredictionWriter` wrote.

        Args:
            path: predictions.csv.
            task: "multiclass" or "multilabel".

        Raises:
            DataError: it is missing or no such table: naming the column or row.
        """
        try:
            with Path(path).open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
                columns = list(reader.fieldnames or [])
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(
                f"the predictions cannot be read: {error}", where=str(path), remedy="evaluate or predict first"
            ) from error
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
        labels = None
        if "label" in columns:
            labels = np.array([_label(row["label"], names, task, f"{path}, {row['file']}") for row in rows])
        return cls(names, files, groups, labels, _probabilities(rows, names, path), task)


def _label(text: str, names: list[str], task: str, where: str) -> int | list[int]:
    if task == "multiclass":
        if text not in names:
            raise DataError(f"label '{text}' is none of the classes {names}", where=where)
        return names.index(text)
    nothing = text == "" or (text == NO_FINDING and NO_FINDING not in names)
    found = set() if nothing else set(text.split(SEPARATOR))
    if not found <= set(names):
        raise DataError(f"label '{text}' names none of the classes {names}", where=where)
    return [int(name in found) for name in names]


def _probabilities(rows: list[dict[str, str]], names: list[str], path: str | Path) -> npt.NDArray[np.float64]:
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
