"""Collects an evaluator's predictions and writes predictions.csv and metrics.json. Used by configs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from medmamba_monai.errors import ConfigError, DataError
from medmamba_monai.handlers.files import require_writable, write_atomic, write_json
from medmamba_monai.handlers.hooks import as_flag, is_rank_zero, process_count

__all__ = ["Prediction", "PredictionWriter"]

PREDICTIONS_NAME = "predictions.csv"
METRICS_NAME = "metrics.json"
SUM_TOLERANCE = 1e-3

Report = Callable[[Sequence[int], Any, Sequence[str]], Mapping[str, Any]]


@dataclass(frozen=True)
class Prediction:
    """One image's result.

    Attributes:
        file: its name as the datalist has it.
        label: true class number, or None.
        probabilities: one per class.
    """

    file: str
    label: int | None
    probabilities: tuple[float, ...]


class PredictionWriter:
    """Writes one row per image, sorted by file, and the metrics of the whole set.

    ``predictions.csv`` has the columns file, label (class name, only where labels are known), prediction
    (class name) and one column of probabilities per class under the class's name. ``metrics.json`` is what
    ``metrics`` returns. The results of several processes are joined; an item that padding gave to two of them
    counts once.

    Args:
        output_dir: folder of both files; created if needed.
        class_names: names in the order of the network's outputs.
        metrics: function of (labels, probabilities (N, C), class names); None writes no metrics.
        labelled: whether the items have labels.
        softmax: predictions are logits and are turned into probabilities here; else they must be
            probabilities.
        pred_key: key of the predictions in the engine's output.
        label_key: key of the labels in the engine's output or batch: class numbers or one-hot.
        file_key: key of the file names in the batch; else the image's metadata are asked.

    Raises:
        ConfigError: class names that repeat or collide with the other columns.
        DataError: no predictions, values that are no probabilities, or items without label or file.

    Example:
        >>> PredictionWriter("out", ["cyst", "cyst"])
        Traceback (most recent call last):
            ...
        medmamba_monai.errors.ConfigError: class_names: 'cyst' occurs twice or is the name of another column
    """

    def __init__(
        self,
        output_dir: str | Path,
        class_names: Sequence[str],
        metrics: Report | None = None,
        labelled: bool | str = True,
        softmax: bool = False,
        pred_key: str = "pred",
        label_key: str = "label",
        file_key: str = "file",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = [str(name) for name in class_names]
        columns = ["file", "label", "prediction", *self.class_names]
        for name in columns:
            if columns.count(name) > 1:
                raise ConfigError(f"'{name}' occurs twice or is the name of another column", where="class_names")
        self.metrics = metrics
        self.labelled = as_flag(labelled, "PredictionWriter.labelled")
        self.softmax = softmax
        self.pred_key, self.label_key, self.file_key = pred_key, label_key, file_key
        self._predictions: list[Prediction] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self._completed)

    def _started(self, engine: Engine) -> None:
        self._predictions.clear()
        if is_rank_zero():
            require_writable(self.output_dir)

    def _iteration_completed(self, engine: Engine) -> None:
        outputs, items = _decollated(engine.state.output), _decollated(engine.state.batch)
        for output, item in zip(outputs, items, strict=True):
            file = self._file_of(item)
            label = self._label_of(output, item, file) if self.labelled else None
            self._predictions.append(Prediction(file, label, self._probabilities(output, file)))

    def _file_of(self, item: Mapping[str, Any]) -> str:
        name = item.get(self.file_key)
        if name is None:
            name = getattr(item.get("image"), "meta", {}).get("filename_or_obj")
        if name is None:
            raise DataError(
                f"an item has neither '{self.file_key}' nor image metadata that name its file",
                remedy="keep the file's name in the datalist's items",
            )
        return str(name)

    def _label_of(self, output: Mapping[str, Any], item: Mapping[str, Any], file: str) -> int:
        value = output.get(self.label_key)
        value = item.get(self.label_key) if value is None else value
        if value is None:
            raise DataError("no label", where=file, remedy="set labelled to false to predict images without labels")
        values = torch.as_tensor(value).flatten()
        label = int(values.item()) if values.numel() == 1 else int(values.argmax())
        if not 0 <= label < len(self.class_names):
            raise DataError(f"label {label} lies outside the {len(self.class_names)} classes", where=file)
        return label

    def _probabilities(self, output: Mapping[str, Any], file: str) -> tuple[float, ...]:
        values = torch.as_tensor(output[self.pred_key]).detach().double().cpu().flatten()
        if values.numel() != len(self.class_names):
            raise DataError(
                f"{values.numel()} predicted values for {len(self.class_names)} classes",
                where=file,
                remedy="evaluate with the classes the network was trained for",
            )
        if not bool(torch.isfinite(values).all()):
            raise DataError("the prediction is not finite", where=file, remedy="look at the image and the weights")
        if self.softmax:
            values = values.softmax(0)
        elif bool((values < 0).any()) or abs(float(values.sum()) - 1.0) > SUM_TOLERANCE:
            raise DataError(
                f"predicted values are no probabilities: {[round(value, 4) for value in values.tolist()]}",
                where=file,
                remedy="add a softmax to the postprocessing, or set softmax of PredictionWriter to true",
            )
        return tuple(values.tolist())

    def _completed(self, engine: Engine) -> None:
        predictions = _joined(self._predictions)
        if not is_rank_zero():
            return
        if not predictions:
            raise DataError("there are no predictions to write", where=str(self.output_dir))
        predictions.sort(key=lambda prediction: prediction.file)
        write_atomic(self.output_dir / PREDICTIONS_NAME, lambda stream: stream.write(self._table(predictions)))
        if self.labelled and self.metrics is not None:
            labels = [prediction.label for prediction in predictions if prediction.label is not None]
            probabilities = np.array([prediction.probabilities for prediction in predictions])
            write_json(self.output_dir / METRICS_NAME, dict(self.metrics(labels, probabilities, self.class_names)))

    def _table(self, predictions: Sequence[Prediction]) -> bytes:
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        label_column = ["label"] if self.labelled else []
        table.writerow(["file", *label_column, "prediction", *self.class_names])
        for prediction in predictions:
            label = [] if prediction.label is None else [self.class_names[prediction.label]]
            best = self.class_names[int(np.argmax(prediction.probabilities))]
            numbers = [f"{value:.8g}" for value in prediction.probabilities]
            table.writerow([prediction.file, *label, best, *numbers])
        return text.getvalue().encode("utf-8")


def _decollated(batch: Any) -> list[Mapping[str, Any]]:
    """Items of a batch that an engine has, or has not, taken apart already."""
    if not isinstance(batch, Mapping):
        return list(batch)
    size = max((len(value) for value in batch.values() if hasattr(value, "__len__")), default=0)
    return [
        {key: value[index] for key, value in batch.items() if hasattr(value, "__len__") and len(value) == size}
        for index in range(size)
    ]


def _joined(own: list[Prediction]) -> list[Prediction]:
    """The predictions of all processes; without a group, this one's."""
    if process_count() == 1:
        return list(own)
    everyone: list[list[Prediction] | None] = [None] * process_count()
    dist.all_gather_object(everyone, own)
    return list({each.file: each for part in everyone if part for each in part}.values())
