"""One row an epoch in history.csv: losses, rates, seconds and scores, for curves without a tracker. Used by configs."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from medmamba_monai.errors import DataError
from medmamba_monai.handlers.files import require_writable, write_atomic
from medmamba_monai.handlers.hooks import batch_loss, is_rank_zero, register_resumable, run_last, scalar

__all__ = ["HISTORY_NAME", "History", "read_history"]

HISTORY_NAME = "history.csv"
FIRST_COLUMNS = ("epoch", "train_loss", "learning_rate", "seconds")
ORDER_AMONG_LAST = 8  # after validation, before the training state is written

Row = dict[str, float | None]


class History:
    """Writes ``history.csv``, one row an epoch.

    Its columns: epoch, train_loss (mean over the epoch's batches), learning_rate (of its last step), seconds
    (validation included), then the scores of training and of validation. An empty cell means "not measured in this
    epoch", ``nan`` an undefined score. The file is complete after every epoch. A resumed training goes on with it and
    replaces the rows of epochs that are trained again; a new training begins it anew. Only the process of rank 0
    writes, with its own batches' losses. Attached to the trainer.

    Args:
        output_dir: folder of the file; created when training starts.
        evaluator: the validation engine, whose scalar metrics are recorded.

    Raises:
        DataError: the history of a resumed training cannot be read.

    Example:
        >>> History("out").path.name
        'history.csv'
    """

    def __init__(self, output_dir: str | Path, evaluator: Engine | None = None) -> None:
        self.path = Path(output_dir) / HISTORY_NAME
        self.evaluator = evaluator
        self.rows: dict[int, Row] = {}
        self._epoch = 0  # the one that the sum belongs to
        self._sum, self._count = 0.0, 0
        self._scores: Row = {}
        self._rate: float | None = None
        self._started_at = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with the trainer (and the evaluator)."""
        register_resumable(engine, "history", self)
        if not is_rank_zero():
            return
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        engine.add_event_handler(Events.ITERATION_STARTED, self._iteration_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        run_last(engine, Events.EPOCH_COMPLETED, self._epoch_completed, ORDER_AMONG_LAST)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(
                Events.EPOCH_COMPLETED, lambda evaluator: self._validated(engine, evaluator)
            )

    def state_dict(self) -> dict[str, Any]:
        """The sum of an epoch that may not be finished."""
        return {"epoch": self._epoch, "sum": self._sum, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on adding up an interrupted epoch."""
        self._epoch, self._sum, self._count = int(state["epoch"]), float(state["sum"]), int(state["count"])

    def _started(self, engine: Engine) -> None:
        require_writable(self.path.parent)
        reached = int(engine.state.epoch)
        known = read_history(self.path) if reached and self.path.is_file() else []
        self.rows = {int(row["epoch"] or 0): row for row in known if (row["epoch"] or 0) <= reached}
        if not self.rows:
            self.path.unlink(missing_ok=True)  # another training's

    def _epoch_started(self, engine: Engine) -> None:
        if self._epoch != engine.state.epoch:
            self._epoch, self._sum, self._count = int(engine.state.epoch), 0.0, 0
        self._scores = {}
        self._started_at = time.perf_counter()

    def _iteration_started(self, engine: Engine) -> None:
        optimizer = getattr(engine, "optimizer", None)
        # before the step, because a schedule may change the rate right after it
        self._rate = None if optimizer is None else float(optimizer.param_groups[0]["lr"])

    def _iteration_completed(self, engine: Engine) -> None:
        loss = batch_loss(engine.state.output)
        if loss is not None:
            self._sum, self._count = self._sum + loss, self._count + 1

    def _validated(self, engine: Engine, evaluator: Engine) -> None:
        self._scores = _scalars(evaluator)
        epoch = int(engine.state.epoch)
        if epoch in self.rows:  # a resumed run makes up for the validation that was interrupted
            self.rows[epoch] |= self._scores
            self._write()

    def _epoch_completed(self, engine: Engine) -> None:
        self.rows[self._epoch] = {
            "epoch": float(self._epoch),
            "train_loss": self._sum / self._count if self._count else None,
            "learning_rate": self._rate,
            "seconds": time.perf_counter() - self._started_at,
            **_scalars(engine),
            **self._scores,
        }
        self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys([*FIRST_COLUMNS, *(name for row in self.rows.values() for name in row)]))
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(columns)
        for epoch in sorted(self.rows):
            cells = [self.rows[epoch].get(name) for name in columns[1:]]
            table.writerow([epoch, *("" if cell is None else f"{cell:.8g}" for cell in cells)])
        write_atomic(self.path, lambda stream: stream.write(text.getvalue().encode("utf-8")))


def read_history(path: str | Path) -> list[Row]:
    """Read what :class:`History` wrote: a dictionary an epoch, None where nothing was measured.

    Raises:
        DataError: the file cannot be read or is no such table, naming the row.
    """
    remedy = "remove the file; the next training writes it anew"
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns, texts = list(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the history cannot be read: {error}", where=str(path), remedy=remedy) from error
    if columns[:1] != ["epoch"]:
        raise DataError(f"no table of epochs: columns {columns}", where=str(path), remedy=remedy)
    rows = []
    for number, text in enumerate(texts, start=2):
        try:
            row = {name: float(text[name]) if text[name] else None for name in columns}
        except (TypeError, ValueError) as error:
            raise DataError(f"not a number: {error}", where=f"{path}, line {number}", remedy=remedy) from error
        if row["epoch"] is None:
            raise DataError("no epoch", where=f"{path}, line {number}", remedy=remedy)
        rows.append(row)
    return rows


def _scalars(engine: Engine) -> Row:
    found = {name: scalar(value) for name, value in engine.state.metrics.items()}
    return {name: value for name, value in found.items() if value is not None and name not in FIRST_COLUMNS}
