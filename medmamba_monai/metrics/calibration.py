"""What validation teaches about a network's probabilities, as calibration.json keeps it, and what it gives elsewhere.

Imports errors and the parts: temperature, thresholds, conformal sets, referral.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medmamba_monai.errors import CheckpointError
from medmamba_monai.metrics.calibration_error import expected_calibration_error
from medmamba_monai.metrics.conformal import conformal_threshold, coverage_report, least_images, prediction_sets
from medmamba_monai.metrics.referral import referral_report
from medmamba_monai.metrics.temperature import check_labels, fit_temperature, negative_log_likelihood, temper
from medmamba_monai.metrics.thresholds import fit_thresholds, thresholded

__all__ = ["FORMAT", "LEAST_IMAGES", "Calibration", "calibration_error"]

FORMAT = 1
LEAST_IMAGES = 20
"""Validation images below which no temperature is fitted."""
FEW_IMAGES = 100


def calibration_error(labels: Any, probabilities: Any, task: str = "multiclass") -> float:
    """Expected calibration error in 15 bins of equal width (Guo et al. 2017): of the predicted class's probability.

    With task "multilabel" every answer of every class counts by itself.

    Example:
        >>> calibration_error([0, 0, 0, 1], [[0.75, 0.25]] * 4)
        0.0
    """
    values = np.asarray(probabilities, dtype=np.float64)
    truth = check_labels(labels, values, task)
    if task == "multilabel":
        sure, right = values.ravel(), (truth == 1).ravel()
    else:
        sure, right = values.max(axis=1), values.argmax(axis=1) == truth
    return expected_calibration_error(sure.clip(0, 1), right)


@dataclass(frozen=True)
class Calibration:
    """Facts of calibration.json.

    Attributes:
        task: "multiclass" or "multilabel".
        class_names: in the order of the probabilities.
        n: validation images.
        temperature: None where it could not be fitted.
        thresholds: class → threshold on the probabilities as the network gives them; None where there is none.
        calibrated_thresholds: the same on probabilities after the temperature.
        criterion: what the thresholds maximise.
        alpha: share of prediction sets that may lack the true class.
        set_threshold: on 1 - calibrated probability, up to which a class belongs to the set; None: no sets.
        remarks: what could not be fitted or rests on few images.
        ood: what is known about unusual images, see `out_of_distribution`.
    """

    task: str
    class_names: list[str]
    n: int
    temperature: float | None
    thresholds: dict[str, float | None]
    calibrated_thresholds: dict[str, float | None]
    criterion: str
    alpha: float
    set_threshold: float | None
    remarks: list[str] = field(default_factory=list)
    ood: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        labels: Any,
        probabilities: Any,
        class_names: Sequence[str],
        task: str = "multiclass",
        alpha: float = 0.1,
        criterion: str = "youden",
        ood: Mapping[str, Any] | None = None,
    ) -> Calibration:
        """Fit all of it on images that the network was not trained on.

        Args:
            labels: (N,) class numbers, with task "multilabel" (N, C) of 0 and 1.
            probabilities: (N, C).
            class_names: C names.
            task: "multiclass" or "multilabel".
            alpha: share of prediction sets that may lack the true class.
            criterion: "youden" or "f1".
            ood: facts about unusual images to be kept with the rest.

        Raises:
            DataError: labels and probabilities do not fit together.
            ConfigError: an unknown task or criterion, or alpha outside (0, 1).
        """
        values = np.asarray(probabilities, dtype=np.float64)
        truth = check_labels(labels, values, task)
        temperature, remarks = _temperature(truth, values, task)
        calibrated = values if temperature is None else temper(values, temperature, task)
        if len(truth) < FEW_IMAGES:
            remarks.append(f"fitted on only {len(truth)} images: expect the numbers to vary")
        thresholds, reasons = fit_thresholds(truth, values, class_names, task, criterion)
        after, _ = fit_thresholds(truth, calibrated, class_names, task, criterion)
        set_threshold = None
        if task == "multilabel":
            remarks.append("no prediction sets: they need one true class an image")
        else:
            set_threshold = conformal_threshold(truth, calibrated, alpha)
            if set_threshold is None:
                remarks.append(
                    f"no prediction sets: alpha={alpha} needs {least_images(alpha)} images, there are {len(truth)}"
                )
        names = [str(name) for name in class_names]
        rest = (criterion, float(alpha), set_threshold, [*remarks, *reasons], dict(ood or {}))
        return cls(task, names, len(truth), temperature, thresholds, after, *rest)

    def apply(self, probabilities: Any) -> Any:
        """Give (N, C) probabilities the temperature; unchanged where there is none."""
        values = np.asarray(probabilities, dtype=np.float64)
        return values if self.temperature is None else temper(values, self.temperature, self.task)

    def sets(self, calibrated: Any) -> list[list[str]] | None:
        """Names in each image's prediction set, most probable first; None where there are no sets.

        Args:
            calibrated: (N, C) probabilities after the temperature.
        """
        if self.set_threshold is None:
            return None
        values = np.asarray(calibrated, dtype=np.float64)
        inside = prediction_sets(values, self.set_threshold)
        order = np.argsort(-values, axis=1, kind="stable")
        return [[self.class_names[i] for i in row if held[i]] for row, held in zip(order, inside, strict=True)]

    def report(self, labels: Any, probabilities: Any, applied: bool = False) -> dict[str, Any]:
        """What all this gives on other images, for metrics.json.

        Args:
            labels: (N,) class numbers, with task "multilabel" (N, C) of 0 and 1.
            probabilities: (N, C).
            applied: they have the temperature already.

        Returns:
            calibration, thresholded, conformal, referral, and undefined: key → reason where one of them is None.
        """
        given = np.asarray(probabilities, dtype=np.float64)
        if applied and self.temperature is not None:
            raw, calibrated = temper(given, 1.0 / self.temperature, self.task), given
        else:
            raw, calibrated = given, self.apply(given)
        thresholds = self.calibrated_thresholds if applied else self.thresholds
        undefined = {}
        before = {"ece_before": calibration_error(labels, raw, self.task)}
        before["log_loss_before"] = negative_log_likelihood(labels, raw, self.task)
        after: dict[str, float | None] = {"ece_after": None, "log_loss_after": None}
        if self.temperature is None:
            undefined["calibration.temperature"] = self._why("temperature")
        else:
            after["ece_after"] = calibration_error(labels, calibrated, self.task)
            after["log_loss_after"] = negative_log_likelihood(labels, calibrated, self.task)
        conformal = None
        if self.set_threshold is None:
            undefined["conformal"] = self._why("prediction sets")
        else:
            conformal = coverage_report(labels, calibrated, self.class_names, self.set_threshold, self.alpha)
        for name, value in thresholds.items():
            if value is None:
                undefined[f"thresholded.{name}"] = self._why(f"threshold for '{name}'")
        return {
            "calibration": {"temperature": self.temperature, **before, **after, "applied": applied, "n": self.n},
            "thresholded": {
                "criterion": self.criterion,
                **thresholded(labels, given, self.class_names, thresholds, self.task),
            },
            "conformal": conformal,
            "referral": referral_report(labels, calibrated, self.task),
            "undefined": undefined,
        }

    def to_json(self) -> dict[str, Any]:
        """The content of calibration.json, but for the weights it belongs to."""
        return {
            "format": FORMAT,
            "part": "validation",
            "n": self.n,
            "task": self.task,
            "class_names": self.class_names,
            "temperature": self.temperature,
            "criterion": self.criterion,
            "thresholds": self.thresholds,
            "calibrated_thresholds": self.calibrated_thresholds,
            "conformal": {"method": "lac", "alpha": self.alpha, "threshold": self.set_threshold},
            "ood": self.ood,
            "remarks": self.remarks,
        }

    @classmethod
    def from_json(cls, content: Any, where: str) -> Calibration:
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: something is missing, or of another version.
        """
        try:
            if content["format"] != FORMAT:
                raise CheckpointError(
                    f"format {content['format']}, this version reads {FORMAT}",
                    where=where,
                    remedy="fit it again with --run_id calibrate",
                )
            sets = content["conformal"]
            return cls(
                str(content["task"]),
                list(content["class_names"]),
                int(content["n"]),
                content["temperature"],
                dict(content["thresholds"]),
                dict(content["calibrated_thresholds"]),
                str(content["criterion"]),
                float(sets["alpha"]),
                sets["threshold"],
                list(content["remarks"]),
                dict(content["ood"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"this is no calibration ({type(error).__name__}: {error})",
                where=where,
                remedy="fit it again with --run_id calibrate",
            ) from error

    def _why(self, what: str) -> str:
        return next(
            (remark for remark in self.remarks if remark.startswith(f"no {what}")), f"no {what} in calibration.json"
        )


def _temperature(truth: Any, values: Any, task: str) -> tuple[float | None, list[str]]:
    n = len(truth)
    if n < LEAST_IMAGES:
        return None, [f"no temperature: it needs {LEAST_IMAGES} validation images, there are {n}"]
    temperature = fit_temperature(truth, values, task)
    if temperature is None:
        reason = "the likelihood has no maximum, as where every validation image is classified right"
        return None, [f"no temperature: {reason}"]
    return temperature, []
