"""Using calibration.json: found, proved to belong to the weights, applied to predictions, reported. Called by configs.

Imports handlers, metrics and networks; needs MONAI.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.transforms import MapTransform

from medmamba_monai.errors import CheckpointError
from medmamba_monai.handlers.checkpoint import MODEL_NAME
from medmamba_monai.handlers.feature_recorder import FeatureRecorder
from medmamba_monai.handlers.files import sha256_of, write_atomic, write_json
from medmamba_monai.handlers.hooks import is_rank_zero
from medmamba_monai.handlers.predictions import METRICS_NAME, PREDICTIONS_NAME, SEPARATOR
from medmamba_monai.metrics import PredictionTable
from medmamba_monai.metrics.calibration import Calibration
from medmamba_monai.metrics.out_of_distribution import UnusualImages
from medmamba_monai.networks.exported import read_info

__all__ = [
    "ARRAYS_NAME",
    "FILE_NAME",
    "SafetyReport",
    "StoredCalibration",
    "TemperProbabilitiesd",
    "proved_calibration",
    "stored_calibration",
    "weights_digest",
]

FILE_NAME = "calibration.json"
ARRAYS_NAME = "calibration.safetensors"
SET_COLUMN = "prediction_set"
SCORE_COLUMN = "ood_score"
HOW_TO_FIT = "fit it with --run_id calibrate, see docs/calibration.md"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredCalibration:
    """A calibration that was found to belong to the weights, or why there is none.

    Attributes:
        calibration: None where there is none to use.
        reason: why; None also where no calibration.json exists and nobody asked for it.
        unusual: scores images by how unlike the validation images they are; None where that was not fitted.
        averaged: predictions are averages, which nothing was fitted on; images are still as unusual as they are.
    """

    calibration: Calibration | None
    reason: str | None = None
    unusual: UnusualImages | None = None
    averaged: bool = False

    def for_averages(self) -> StoredCalibration:
        """Keep what tells unusual images, by the one network asked about the image as it is; leave out all else."""
        if self.calibration is None:
            return self
        reason = "predictions are averages (tta or ensemble), and it was fitted on single ones"
        return StoredCalibration(None, reason, self.unusual, averaged=True)


def weights_digest(ckpt_dir: str | Path) -> str:
    """The sha256 that ties a calibration to weights.

    Raises:
        CheckpointError: there are no weights.
    """
    file = Path(ckpt_dir) / MODEL_NAME
    if not file.is_file():
        raise CheckpointError("there are no weights here", where=str(file), remedy="train first, or give --ckpt_dir")
    return sha256_of(file)


def stored_calibration(
    ckpt_dir: str,
    class_names: Sequence[str],
    task: str = "multiclass",
    exported: str | None = None,
    required: bool = False,
    weights_given: bool = False,
) -> StoredCalibration:
    """Read calibration.json and prove that it was fitted with the weights that are used.

    Args:
        ckpt_dir: folder of model.pt and calibration.json.
        class_names: of the run.
        task: of the run.
        exported: file that predicts in place of the weights; its calibration.json lies beside it or in ``ckpt_dir``.
        required: refuse where there is no such calibration; else the reason is returned.
        weights_given: the network gets its weights from others, as in federated learning.

    Raises:
        CheckpointError: it is unreadable; or it is required and missing, or belongs to other weights or classes.
    """
    folders = [Path(ckpt_dir)] if exported is None else [Path(exported).parent, Path(ckpt_dir)]
    file = next((folder / FILE_NAME for folder in folders if (folder / FILE_NAME).is_file()), folders[0] / FILE_NAME)
    if not file.is_file():
        reason, remedy = "there is no calibration of these weights", HOW_TO_FIT
        if not required:
            return StoredCalibration(None)
    elif weights_given:
        reason, remedy = "it is of the weights in ckpt_dir, which are not used", "set calibrated to false"
    else:
        calibration, of_weights = _read(file)
        reason, remedy = _mismatch(calibration, of_weights, ckpt_dir, exported, class_names, task)
        if not reason:
            try:
                return StoredCalibration(calibration, unusual=_unusual(calibration, file.parent))
            except CheckpointError as error:
                if required:
                    raise
                reason, remedy = str(error), HOW_TO_FIT
    if required:
        raise CheckpointError(reason, where=str(file), remedy=remedy)
    logger.warning("%s is not used: %s; %s", file, reason, remedy)
    return StoredCalibration(None, reason)


def proved_calibration(file: Path, weights_sha256: str, class_names: Sequence[str], task: str) -> list[Path]:
    """Prove that a calibration is of the weights it goes along with.

    Args:
        file: calibration.json.
        weights_sha256: of the weights' file.
        class_names: of the weights.
        task: of the weights.

    Returns:
        The files it consists of: itself and, where it names some, its arrays beside it.

    Raises:
        CheckpointError: it is unreadable, incomplete, or of other weights, classes or another task.
    """
    calibration, of_weights = _read(file)
    reason = _difference(calibration, of_weights, weights_sha256, class_names, task)
    if reason:
        raise CheckpointError(reason, where=str(file), remedy=f"delete it, or {HOW_TO_FIT}")
    _unusual(calibration, file.parent)
    return [file, file.with_name(ARRAYS_NAME)] if "reference" in calibration.ood else [file]


def _read(file: Path) -> tuple[Calibration, str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        digest = str(content["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"it cannot be read ({type(error).__name__}: {error})",
            where=str(file),
            remedy=f"delete it, or {HOW_TO_FIT}",
        ) from error
    return Calibration.from_json(content, str(file)), digest


def _unusual(calibration: Calibration, folder: Path) -> UnusualImages | None:
    facts = calibration.ood
    if not facts:
        return None
    arrays = None
    if "reference" in facts:
        from safetensors.numpy import load_file

        file = folder / ARRAYS_NAME
        if not file.is_file() or sha256_of(file) != facts["reference_sha256"]:
            raise CheckpointError(
                f"missing, or not the one that {FILE_NAME} names",
                where=str(file),
                remedy=f"copy it with {FILE_NAME}, or {HOW_TO_FIT}",
            )
        arrays = load_file(file)
    return UnusualImages.from_facts(facts, arrays, calibration.task)


def _mismatch(
    calibration: Calibration,
    of_weights: str,
    ckpt_dir: str,
    exported: str | None,
    class_names: Sequence[str],
    task: str,
) -> tuple[str, str]:
    """Why a calibration is not of what is used, and what to do; empty texts where it is."""
    if exported is None:
        used = weights_digest(ckpt_dir)
    else:
        used = str(read_info(exported).extra.get("weights_sha256", ""))
        if not used:
            return "the exported file does not say which weights it has", "export the weights again"
    reason = _difference(calibration, of_weights, used, class_names, task)
    return reason, HOW_TO_FIT if reason else ""


def _difference(calibration: Calibration, of_weights: str, used: str, class_names: Sequence[str], task: str) -> str:
    """Why a calibration is not of these weights, classes and task; empty where it is."""
    if of_weights != used:
        return f"it was fitted with other weights (sha256 {of_weights[:12]}, now {used[:12]})"
    if calibration.class_names != list(class_names) or calibration.task != task:
        was = f"{calibration.task}, classes {calibration.class_names}"
        return f"it was fitted for {was}; this run is {task}, classes {list(class_names)}"
    return ""


class TemperProbabilitiesd(MapTransform):
    """Divide the logits behind probabilities by the fitted temperature.

    Args:
        keys: of tensors (..., C) of probabilities.
        stored: from :func:`stored_calibration`.

    Raises:
        CheckpointError: there is no temperature.
    """

    def __init__(self, keys: str | Sequence[str], stored: StoredCalibration) -> None:
        super().__init__(keys)
        calibration = stored.calibration
        if calibration is None or calibration.temperature is None:
            why = stored.reason or "; ".join([] if calibration is None else calibration.remarks)
            raise CheckpointError(
                f"there is no temperature to apply: {why or 'no calibration'}",
                where=f"calibrated, {FILE_NAME}",
                remedy="set calibrated to false, or fit on more validation images",
            )
        self.calibration = calibration

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Give every key the temperature."""
        result = dict(data)
        for key in self.key_iterator(result):
            given = torch.as_tensor(result[key])
            values = self.calibration.apply(given.detach().double().cpu().reshape(-1, given.shape[-1]).numpy())
            result[key] = torch.from_numpy(values).reshape(given.shape).to(given)
        return result


class SafetyReport:
    """Evaluator handler, after PredictionWriter: what calibration.json gives, in metrics.json and predictions.csv.

    ``metrics.json`` gets calibration, thresholded, conformal and referral; where one cannot be had, the reason stands
    under undefined. ``predictions.csv`` gets the column prediction_set on request: class names joined by "|", the
    most probable first; empty where no class is probable enough; and ood_score, 0 for the median validation image, 1 at
    their 95th percentile.

    Args:
        output_dir: folder of both files.
        stored: from :func:`stored_calibration`.
        task: "multiclass" or "multilabel".
        applied: predictions have the temperature already.
        prediction_sets: write the column.
        ood_score: write the column.
        labelled: whether there are labels, and so a ``metrics.json``.

    Raises:
        CheckpointError: prediction sets are asked for and cannot be had.
    """

    def __init__(
        self,
        output_dir: str | Path,
        stored: StoredCalibration,
        task: str = "multiclass",
        applied: bool = False,
        prediction_sets: bool = False,
        labelled: bool = True,
        ood_score: bool = False,
    ) -> None:
        self.ood_score = ood_score
        self.recorder = FeatureRecorder(
            stored.unusual is not None and (labelled or ood_score), last_pass=stored.averaged
        )
        self.output_dir, self.stored, self.task = Path(output_dir), stored, task
        self.applied, self.prediction_sets, self.labelled = applied, prediction_sets, labelled
        calibration = stored.calibration
        if prediction_sets and (calibration is None or calibration.set_threshold is None):
            why = stored.reason or "; ".join(["there is none"] if calibration is None else calibration.remarks)
            raise CheckpointError(
                f"there are no prediction sets: {why}", where=FILE_NAME, remedy="set prediction_sets to false"
            )
        if ood_score and stored.unusual is None:
            why = stored.reason or "; ".join(["there is none"] if calibration is None else calibration.remarks)
            raise CheckpointError(
                f"there is nothing to tell unusual images by: {why}",
                where=FILE_NAME,
                remedy=f"set ood_score to false, or {HOW_TO_FIT}",
            )

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator."""
        self.recorder.attach(engine)
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Complete both files, on the first process."""
        if not is_rank_zero():
            return
        calibration = self.stored.calibration
        if calibration is None and self.labelled and self.stored.reason:
            self._add_metrics({"calibration": None, "undefined": {"calibration": self.stored.reason}})
        if calibration is None and self.stored.unusual is None:
            return
        table = PredictionTable.read(self.output_dir / PREDICTIONS_NAME, self.task)
        scores, ood = self._scores(table.files)
        if self.labelled and table.labels is not None and calibration is None:
            self._add_metrics({"ood": ood, "undefined": {}})
        elif self.labelled and table.labels is not None and calibration is not None:
            found = calibration.report(table.labels, table.probabilities, self.applied)
            if ood is None:
                found["undefined"]["ood"] = (
                    "; ".join(r for r in calibration.remarks if "ood_score" in r) or "not fitted"
                )
            self._add_metrics({**found, "ood": ood})
        columns = {}
        if self.prediction_sets and calibration is not None:
            calibrated = table.probabilities if self.applied else calibration.apply(table.probabilities)
            columns[SET_COLUMN] = [SEPARATOR.join(names) for names in calibration.sets(calibrated) or []]
        if self.ood_score and scores is not None:
            columns[SCORE_COLUMN] = [f"{score:.4f}" for score in scores]
        if columns:
            add_columns(self.output_dir / PREDICTIONS_NAME, columns)

    def _scores(self, files: list[str]) -> tuple[Any, dict[str, Any] | None]:
        """Every image's score, and what metrics.json says of them."""
        unusual = self.stored.unusual
        if unusual is None or not self.recorder.enabled:
            return None, None
        logits, features = self.recorder.of(files)
        scores = unusual.score(logits, features)
        method = unusual.method(features is not None)
        if method != unusual.method(True):
            logger.warning("ood_score is the energy: this network shows no features")
        facts = {"method": method, "median": float(np.median(scores)), "share_above_1": float((scores > 1).mean())}
        return scores, facts

    def _add_metrics(self, found: dict[str, Any]) -> None:
        file = self.output_dir / METRICS_NAME
        if not file.is_file():
            return
        metrics = json.loads(file.read_text(encoding="utf-8"))
        undefined = {**metrics.get("undefined", {}), **found.pop("undefined")}
        write_json(file, {**metrics, **found, "undefined": undefined})


def add_columns(file: Path, columns: Mapping[str, Sequence[str]]) -> None:
    """Put columns behind ``prediction`` into a table that PredictionWriter wrote.

    Args:
        file: predictions.csv.
        columns: name → one value a row, in the order of the rows.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        header, *rows = list(csv.reader(stream))
    place = header.index("prediction") + 1
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*header[:place], *columns, *header[place:]])
    for row, values in zip(rows, zip(*columns.values(), strict=True), strict=True):
        writer.writerow([*row[:place], *values, *row[place:]])
    write_atomic(file, lambda stream: stream.write(text.getvalue().encode("utf-8")))
