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
SEPARATOR = "|"  # between the names of several classes, as label tables have it
NO_FINDING = "No Finding"

Report = Callable[..., Mapping[str, Any]]
Label = int | tuple[int, ...]


@dataclass(frozen=True)
class Prediction:
    """One image's result.

    Attributes:
        file: its name as the datalist has it.
        label: true class number, a 0 or 1 for each class where an image may have several, or None.
        probabilities: one per class.
        group: the patient or other group the image belongs to; empty where it has none.
    """

    file: str
    label: Label | None
    probabilities: tuple[float, ...]
    group: str = ""


class PredictionWriter:
    """Writes one row per image, sorted by file, and the metrics of the whole set.

    ``predictions.csv`` has the columns file, group (only with ``groups``), label (class name, only where labels are
    known), prediction (class name) and one column of probabilities per class under the class's name. Where an image
    may have several classes, label and prediction are their names joined by "|", or "No Finding". ``metrics.json``
    is what ``metrics`` returns. The results of several processes are joined; an item that padding gave to two of them
    counts once.

    Args:
        output_dir: folder of both files; created if needed.
        class_names: names in the order of the network's outputs.
        metrics: function of (labels, probabilities (N, C), class names) and clusters (what each image belongs to, None
            where groups are not known), with task "multilabel" also of threshold; None writes no metrics.
        labelled: whether the items have labels.
        softmax: predictions are logits and are turned into probabilities here, by a sigmoid with task
            "multilabel"; else they must be probabilities.
        pred_key: key of the predictions in the engine's output.
        label_key: key of the labels in the engine's output or batch: class numbers or one-hot; with task
            "multilabel" a 0 or 1 for each class.
        file_key: key of the file names in the batch; else the image's metadata are asked.
        task: "multiclass" or "multilabel".
        threshold: with task "multilabel", probability from which on a class is predicted.
        remarks: what is to stand in ``metrics.json`` besides the metrics.
        groups: file name → patient or other group; empty: groups are not known, and there is no such column.

    Raises:
        ConfigError: class names that repeat or collide with the other columns, or an unknown task or threshold.
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
        task: str = "multiclass",
        threshold: float = 0.5,
        remarks: Mapping[str, Any] | None = None,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        if task not in ("multiclass", "multilabel"):
            raise ConfigError(f"task={task!r}", remedy="use multiclass or multilabel")
        if not 0 < threshold < 1:
            raise ConfigError(f"threshold={threshold} lies outside 0 to 1", remedy="give a number between them")
        self.several = task == "multilabel"
        self.threshold = float(threshold)
        self.remarks = dict(remarks or {})
        self.groups = dict(groups or {})
        self.output_dir = Path(output_dir)
        self.class_names = [str(name) for name in class_names]
        columns = ["file", "group", "label", "prediction", "prediction_set", "ood_score", "fold", *self.class_names]
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
            self._predictions.append(
                Prediction(file, label, self._probabilities(output, file), self.groups.get(file, ""))
            )

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

    def _label_of(self, output: Mapping[str, Any], item: Mapping[str, Any], file: str) -> Label:
        value = output.get(self.label_key)
        value = item.get(self.label_key) if value is None else value
        if value is None:
            raise DataError("no label", where=file, remedy="set labelled to false to predict images without labels")
        values = torch.as_tensor(value).flatten()
        if self.several:
            flags = tuple(int(flag) for flag in values.tolist())
            if len(flags) != len(self.class_names) or not set(values.tolist()) <= {0, 1}:
                raise DataError(f"label {values.tolist()} is no 0 or 1 for each class", where=file)
            return flags
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
        function = "sigmoid" if self.several else "softmax"
        if self.softmax:
            values = values.sigmoid() if self.several else values.softmax(0)
        elif not self._are_probabilities(values):
            raise DataError(
                f"predicted values are no probabilities: {[round(value, 4) for value in values.tolist()]}",
                where=file,
                remedy=f"add a {function} to the postprocessing, or set softmax of PredictionWriter to true",
            )
        return tuple(values.tolist())

    def _are_probabilities(self, values: torch.Tensor) -> bool:
        inside = bool(((values >= 0) & (values <= 1 + SUM_TOLERANCE)).all())
        return inside and (self.several or abs(float(values.sum()) - 1.0) <= SUM_TOLERANCE)

    def _completed(self, engine: Engine) -> None:
        predictions = _joined(self._predictions)
        if is_rank_zero():
            self.write(predictions)

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Write both files; an engine's predictions are written by themselves when it completes.

        Args:
            predictions: in any order, each file once.

        Raises:
            DataError: there are none.
        """
        if not predictions:
            raise DataError("there are no predictions to write", where=str(self.output_dir))
        predictions = sorted(predictions, key=lambda prediction: prediction.file)
        write_atomic(self.output_dir / PREDICTIONS_NAME, lambda stream: stream.write(self._table(predictions)))
        if self.labelled and self.metrics is not None:
            labels = [prediction.label for prediction in predictions if prediction.label is not None]
            probabilities = np.array([prediction.probabilities for prediction in predictions])
            options: dict[str, Any] = {"threshold": self.threshold} if self.several else {}
            # an image without a group stands for itself
            options["clusters"] = [each.group or each.file for each in predictions] if self.groups else None
            report = self.metrics(labels, probabilities, self.class_names, **options)
            write_json(self.output_dir / METRICS_NAME, {**report, **self.remarks})

    def _table(self, predictions: Sequence[Prediction]) -> bytes:
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        group_column = ["group"] if self.groups else []
        label_column = ["label"] if self.labelled else []
        table.writerow(["file", *group_column, *label_column, "prediction", *self.class_names])
        for prediction in predictions:
            label = [] if prediction.label is None else [self._text(prediction.label)]
            predicted = self._text(self._decided(prediction.probabilities))
            numbers = [f"{value:.8g}" for value in prediction.probabilities]
            group = [prediction.group] if self.groups else []
            table.writerow([prediction.file, *group, *label, predicted, *numbers])
        return text.getvalue().encode("utf-8")

    def _decided(self, probabilities: Sequence[float]) -> Label:
        if self.several:
            return tuple(int(value >= self.threshold) for value in probabilities)
        return int(np.argmax(probabilities))

    def _text(self, label: Label) -> str:
        if isinstance(label, int):
            return self.class_names[label]
        names = [name for name, flag in zip(self.class_names, label, strict=True) if flag]
        # a class of that name keeps it for itself; then no class at all is an empty cell
        return SEPARATOR.join(names) or ("" if NO_FINDING in self.class_names else NO_FINDING)


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
