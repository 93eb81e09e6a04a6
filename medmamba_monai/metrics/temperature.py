"""Temperature scaling: one number, fitted on validation, that makes probabilities honest. Imports errors, NumPy, SciPy.

C. Guo et al., On calibration of modern neural networks, ICML 2017: logits are divided by T > 0, which changes no
ranking of an image's classes. Log-probabilities are logits up to a constant for each image: probabilities suffice.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import ConfigError, DataError

__all__ = ["BOUNDS", "check_labels", "fit_temperature", "negative_log_likelihood", "temper"]

BOUNDS = (0.05, 20.0)
"""Temperatures that are looked at; an optimum at either end means that there is none."""

_SMALLEST = {"multiclass": 1e-38, "multilabel": 1e-7}  # float32's range, and its distance below 1

Values = npt.NDArray[np.float64]


def temper(probabilities: Any, temperature: float, task: str = "multiclass") -> Values:
    """Divide the logits that probabilities stand for by a temperature.

    Args:
        probabilities: (N, C), rows that sum to one; with task "multilabel" each for itself.
        temperature: above 1 probabilities become less certain, below 1 more.
        task: "multiclass" or "multilabel".

    Returns:
        (N, C) probabilities.

    Raises:
        ConfigError: a temperature that is not above 0, or an unknown task.

    Example:
        >>> temper([[0.8, 0.2]], 2.0).round(3).tolist()
        [[0.667, 0.333]]
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ConfigError(f"temperature={temperature} is not above 0")
    return _scaled(_logits(probabilities, task), 1.0 / temperature, task)


def fit_temperature(labels: Any, probabilities: Any, task: str = "multiclass") -> float | None:
    """Find the temperature with the smallest negative log-likelihood, a convex function of 1 / T.

    Args:
        labels: (N,) class numbers, with task "multilabel" (N, C) of 0 and 1.
        probabilities: (N, C), of images the network was not trained on.
        task: "multiclass" or "multilabel".

    Returns:
        The temperature; None where the likelihood has no maximum within :data:`BOUNDS`, as when every image is
        classified right by a margin.

    Raises:
        DataError: labels and probabilities do not fit together.
        ConfigError: an unknown task.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    values = np.asarray(probabilities, dtype=np.float64)
    truth = check_labels(labels, values, task)
    logits = _logits(values, task)
    if not _has_optimum(truth, logits, task):
        return None
    low, high = (math.log(bound) for bound in BOUNDS)

    def loss(log_temperature: float) -> float:
        # of logits, not of clipped probabilities: clipping would make confident errors free and the loss bimodal
        scaled = logits * math.exp(-log_temperature)
        if task == "multilabel":
            return float(np.logaddexp(0.0, np.where(truth == 1, -scaled, scaled)).mean())
        right = np.take_along_axis(scaled, truth[:, None], axis=1)[:, 0]
        return float((logsumexp(scaled, axis=1) - right).mean())

    best = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7}).x)
    return None if min(best - low, high - best) < 1e-3 else math.exp(best)


def _has_optimum(truth: npt.NDArray[np.int64], logits: Values, task: str) -> bool:
    """Whether the loss falls at 1 / T = 0 (better than chance) and rises at infinity (an error is made)."""
    if task == "multilabel":
        gains = np.where(truth == 1, logits, -logits)
        return bool(gains.mean() > 0 and (gains < 0).any())
    right = np.take_along_axis(logits, truth[:, None], axis=1)[:, 0]
    return bool((right - logits.mean(axis=1)).mean() > 0 and (right < logits.max(axis=1)).any())


def negative_log_likelihood(labels: Any, probabilities: Any, task: str = "multiclass") -> float:
    """Mean negative log-likelihood in nats: over images, with task "multilabel" over all their answers.

    Example:
        >>> round(negative_log_likelihood([0, 1], [[0.5, 0.5], [0.5, 0.5]]), 4)
        0.6931
    """
    values = np.asarray(probabilities, dtype=np.float64)
    truth = check_labels(labels, values, task)
    small = _SMALLEST[task]
    if task == "multilabel":
        likelihood = np.where(truth == 1, values, 1.0 - values)
    else:
        likelihood = np.take_along_axis(values, truth[:, None], axis=1)
    return float(-np.log(np.maximum(likelihood, small)).mean())


def check_labels(labels: Any, probabilities: Values, task: str) -> npt.NDArray[np.int64]:
    """Return labels as an array that fits the probabilities.

    Raises:
        DataError: it does not.
        ConfigError: an unknown task.
    """
    _known(task)
    truth = np.asarray(labels, dtype=np.int64)
    expected = probabilities.shape if task == "multilabel" else probabilities.shape[:1]
    classes = probabilities.shape[1] if probabilities.ndim == 2 else 0
    highest = 2 if task == "multilabel" else classes
    if probabilities.ndim != 2 or truth.shape != expected or len(truth) == 0:
        raise DataError(f"{truth.shape} labels and {probabilities.shape} probabilities do not fit, task {task}")
    if truth.min() < 0 or truth.max() >= highest:
        raise DataError(f"labels run from {truth.min()} to {truth.max()}, task {task} with {classes} classes")
    return truth


def _known(task: str) -> None:
    if task not in _SMALLEST:
        raise ConfigError(f"task={task!r}", remedy=f"use one of {', '.join(_SMALLEST)}")


def _logits(probabilities: Any, task: str) -> Values:
    _known(task)
    values = np.asarray(probabilities, dtype=np.float64)
    small = _SMALLEST[task]
    if task == "multilabel":
        values = np.clip(values, small, 1.0 - small)
        return np.asarray(np.log(values) - np.log1p(-values))
    return np.asarray(np.log(np.maximum(values, small)))


def _scaled(logits: Values, factor: float, task: str) -> Values:
    from scipy.special import expit, softmax

    return np.asarray(expit(logits * factor) if task == "multilabel" else softmax(logits * factor, axis=1))
