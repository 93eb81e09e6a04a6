"""What the files of an evaluation say, read back: the one source of figures and page. Needs no image and no network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmamba_monai.data import Datalist
from medmamba_monai.errors import DataError
from medmamba_monai.handlers import read_history
from medmamba_monai.metrics import PredictionTable

__all__ = ["PARTS", "Run", "data_name", "read_run"]

PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Run:
    """An evaluation's files.

    Attributes:
        folder: output_dir of the evaluation.
        name: of the data set.
        experiment: name of the bundle or experiment.
        split: which part was evaluated.
        table: predictions.csv.
        metrics: metrics.json.
        history: rows of history.csv; empty where there is none.
        datalist: datalist.json; None where there is none.
        configs: "train" and "evaluate": the configurations as they were run, where they were saved.
        explanations: explanations/index.json; None where there is none.
        remarks: files that could not be used, and why.
    """

    folder: Path
    name: str
    experiment: str
    split: str
    table: PredictionTable
    metrics: dict[str, Any]
    history: list[dict[str, float | None]] = field(default_factory=list)
    datalist: Datalist | None = None
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    explanations: dict[str, Any] | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def several(self) -> bool:
        """Whether an image may have several classes."""
        return self.table.task == "multilabel"

    @property
    def same_files(self) -> bool:
        """Whether training had the same files, so that the data list tells what it was given."""
        return self.metrics.get("same_files") is True

    @property
    def threshold(self) -> float:
        """With several labels, the probability from which on a class is predicted."""
        return float(self.metrics.get("threshold", 0.5))


def read_run(folder: Path, split: str | None = None) -> Run:
    """Read the folder that evaluate wrote.

    Args:
        folder: output_dir of the evaluation.
        split: which part was evaluated; None: as the saved configuration or the data list tells.

    Raises:
        DataError: predictions.csv with labels or metrics.json is missing or damaged.
    """
    remedy = "give the output_dir of an evaluation (train.json and evaluate.json of a bundle)"
    metrics = _json(folder / "metrics.json", remedy)
    table = PredictionTable.read(folder / "predictions.csv", task=str(metrics.get("task", "multiclass")))
    if table.labels is None:
        raise DataError("these predictions have no labels to compare with", where=str(folder), remedy=remedy)
    remarks: list[str] = []
    configs: dict[str, dict[str, Any]] = {}
    for mode in ("train", "evaluate"):
        _try(remarks, folder / f"{mode}_config.json", lambda path, key=mode: configs.update({key: _json(path, "")}))
    history: list[dict[str, float | None]] = []
    _try(remarks, folder / "history.csv", lambda path: history.extend(read_history(path)))
    lists: list[Datalist] = []
    _try(remarks, folder / "datalist.json", lambda path: lists.append(Datalist.load(path, allow_leakage=True)))
    explained: list[dict[str, Any]] = []
    _try(remarks, folder / "explanations" / "index.json", lambda path: explained.append(_json(path, "")))
    config = configs.get("evaluate") or configs.get("train") or {}
    datalist = lists[0] if lists else None
    return Run(
        folder=folder,
        name=data_name(config.get("dataset_dir"), config.get("data_source"), folder.name),
        experiment=str(config.get("experiment_name", "medmamba_monai")),
        split=split or _split(config, datalist, table),
        table=table,
        metrics=metrics,
        history=history,
        datalist=datalist,
        configs=configs,
        explanations=explained[0] if explained else None,
        remarks=remarks,
    )


def data_name(dataset_dir: Any, data_source: Any = None, otherwise: str = "images") -> str:
    """What to call a data set: its published name, or the last folder of its path and no more of it.

    Example:
        >>> data_name("/home/someone/scans/ultrasound"), data_name("$@bundle_root + '/data'", {"name": "BUSI"})
        ('ultrasound', 'BUSI')
    """
    if isinstance(data_source, Mapping) and data_source.get("name"):
        return str(data_source["name"])
    if isinstance(dataset_dir, str | os.PathLike) and not str(dataset_dir).startswith(("$", "@")):
        return Path(dataset_dir).name or otherwise
    return otherwise


def _split(config: Mapping[str, Any], datalist: Datalist | None, table: PredictionTable) -> str:
    if config.get("split") in PARTS:
        return str(config["split"])
    for part in PARTS if datalist is not None else ():
        if datalist is not None and set(table.files) <= {record["image"] for record in datalist.records(part)}:
            return part
    return "evaluated"


def _try(remarks: list[str], path: Path, read: Any) -> None:
    """Read a file that is not needed; what is wrong with it stands in the page."""
    if path.is_file():
        try:
            read(path)
        except DataError as error:
            remarks.append(f"{path.name}: {error.what}")


def _json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot be read: {reason}", where=str(path), remedy=remedy) from error
    if not isinstance(content, dict):
        raise DataError("is no JSON object", where=str(path), remedy=remedy)
    return content
