"""Experiments without trainings: the data are real, runs only write what a run would leave behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fire.parser import DefaultParseValue
from PIL import Image

from medmamba_monai.bundling.experiment import Experiment
from medmamba_monai.bundling.splits import Splits
from medmamba_monai.data import Datalist
from medmamba_monai.handlers import PredictionWriter
from medmamba_monai.handlers.predictions import Prediction
from medmamba_monai.metrics import report_of

SETTINGS = {
    "task": "multiclass", "key_metric": "balanced_accuracy", "seed": 0, "epochs": 9, "mlflow": False,
    "tracking_uri": None, "experiment_name": "e",
}  # fmt: skip


def write_images(folder: Path, per_class: int = 12, side: int = 20) -> Path:
    """Noise, so that no image is a copy of another; two a patient by the table beside them."""
    rng = np.random.default_rng(0)
    rows = ["file,label,patient_id"]
    folder.mkdir()
    for name in ("benign", "malignant"):
        for index in range(per_class):
            file = f"{name}_{index}.png"
            Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(folder / file)
            rows.append(f"{file},{name},{name}{index // 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def bundle_in(root: Path) -> Path:
    """A folder that passes for a bundle."""
    (root / "b" / "configs").mkdir(parents=True, exist_ok=True)
    (root / "b" / "configs" / "train.json").write_text("{}")
    return root / "b"


def make_experiment(root: Path, options: Mapping[str, Any] | None = None, **splits: Any) -> Experiment:
    """An experiment on such images, in ``root/out``."""
    data = root / "data"
    if not data.exists():
        write_images(data)
    given = Splits(str(data), output_dir=str(root / "out" / "data"), **splits)
    options = {"dataset_dir": str(data), **(options or {})}
    return Experiment(root / "bundle", root / "out", options, [], given, dict(SETTINGS))


class FakeRuns:
    """Stands for `run_bundle`: notes what is asked for, predicts at random, and fails where told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.further: list[dict[str, Any]] = []
        self.before: Callable[[str, dict[str, Any], Path], int] = lambda mode, options, log: 0

    def __call__(self, arguments: list[str], log: Path, **further: Any) -> int:
        mode = "evaluate" if "evaluate.json" in arguments[2] else "train"
        words = arguments[3:]
        options = {
            key.removeprefix("--"): DefaultParseValue(value) for key, value in zip(words[::2], words[1::2], strict=True)
        }
        self.asked.append((mode, options))
        self.further.append(further)
        log.parent.mkdir(parents=True, exist_ok=True)
        code = self.before(mode, options, log)
        if code == 0:
            self.leave_results(mode, options)
            if not log.exists():
                log.write_text("")
        log.with_suffix(".status.json").write_text(json.dumps({"code": code}))
        return code

    def leave_results(self, mode: str, options: dict[str, Any]) -> None:
        if mode == "train":
            Path(options["ckpt_dir"]).mkdir(parents=True, exist_ok=True)
            return
        datalist = Datalist.load(options["datalist"])
        rng = np.random.default_rng(options["seed"])
        writer = PredictionWriter(options["output_dir"], datalist.class_names, report_of("multiclass"))
        writer.write(
            [
                Prediction(record["image"], record["label"], tuple(rng.dirichlet([1, 1])), record.get("group", ""))
                for record in datalist.test
            ]
        )

    def names(self) -> list[str]:
        """Mode, fold and seed of each run."""
        return [
            f"{mode} {Path(options['ckpt_dir']).parent.relative_to(folder_of(options))}" for mode, options in self.asked
        ]


def folder_of(options: Mapping[str, Any]) -> Path:
    """The folder of the experiment."""
    return next(parent for parent in Path(options["ckpt_dir"]).parents if parent.name == "out")
