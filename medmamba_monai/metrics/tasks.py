"""Which metrics belong to which task: one class an image, or any number of them. Imports the reports."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from medmamba_monai.errors import ConfigError
from medmamba_monai.metrics.bootstrap import RESAMPLES
from medmamba_monai.metrics.classification import SCORE_NAMES, classification_report, multiclass_predictions
from medmamba_monai.metrics.intervals import Predictions
from medmamba_monai.metrics.multilabel import MULTILABEL_SCORE_NAMES, multilabel_predictions, multilabel_report

__all__ = [
    "LOSSES",
    "check_score",
    "default_score",
    "evaluation_of",
    "predictions_of",
    "report_of",
    "score_mode",
    "score_names",
    "watched_scores",
]

LOSSES = ("brier", "log_loss", "ece", "hamming_loss")
"""Metrics of which smaller is better."""


_REPORTS: dict[str, Callable[..., dict[str, Any]]] = {
    "multiclass": classification_report,
    "multilabel": multilabel_report,
}
_PREDICTIONS: dict[str, Callable[..., Predictions]] = {
    "multiclass": multiclass_predictions,
    "multilabel": multilabel_predictions,
}
_NAMES = {"multiclass": SCORE_NAMES, "multilabel": MULTILABEL_SCORE_NAMES}
_DEFAULTS = {"multiclass": "balanced_accuracy", "multilabel": "auc"}
_WATCHED = {
    "multiclass": ("accuracy", "balanced_accuracy", "auc", "f1", "log_loss"),
    "multilabel": ("auc", "average_precision", "f1", "exact_match", "log_loss"),
}


def report_of(task: str) -> Callable[..., dict[str, Any]]:
    """The function that computes all metrics of a task, without intervals unless told to.

    Raises:
        ConfigError: there is no such task.

    Example:
        >>> report_of("multilabel").__name__
        'multilabel_report'
    """
    return _REPORTS[_checked(task)]


def evaluation_of(task: str) -> Callable[..., dict[str, Any]]:
    """The same with bootstrap and DeLong intervals, over ``clusters`` where given.

    Raises:
        ConfigError: there is no such task.

    Example:
        >>> labels, probabilities = [0, 1] * 10, [[0.9, 0.1], [0.2, 0.8]] * 10
        >>> evaluation_of("multiclass")(labels, probabilities, ["a", "b"])["resampling"]["unit"]
        'image'
    """
    return partial(report_of(task), resamples=RESAMPLES)


def predictions_of(task: str) -> Callable[..., Predictions]:
    """The function that checks labels and probabilities of a task and brings them into the form all metrics take.

    Raises:
        ConfigError: there is no such task.

    Example:
        >>> predictions_of("multiclass")([0, 1], [[0.9, 0.1], [0.8, 0.2]], ["a", "b"]).score("accuracy")
        0.5
    """
    return _PREDICTIONS[_checked(task)]


def score_names(task: str) -> tuple[str, ...]:
    """All metrics of a task that are one number.

    Raises:
        ConfigError: there is no such task.
    """
    return _NAMES[_checked(task)]


def score_mode(name: str) -> str:
    """Which values of a metric are better, as the handlers that choose weights take it.

    Example:
        >>> score_mode("auc"), score_mode("log_loss")
        ('max', 'min')
    """
    return "min" if name in LOSSES else "max"


def default_score(task: str) -> str:
    """The metric that decides which weights are kept, unless told otherwise.

    Raises:
        ConfigError: there is no such task.

    Example:
        >>> default_score("multiclass"), default_score("multilabel")
        ('balanced_accuracy', 'auc')
    """
    return _DEFAULTS[_checked(task)]


def watched_scores(task: str, key_metric: str) -> list[str]:
    """Metrics worth a look after every epoch besides the one that decides.

    Raises:
        ConfigError: there is no such task.

    Example:
        >>> watched_scores("multilabel", "auc")
        ['average_precision', 'f1', 'exact_match', 'log_loss']
    """
    return [name for name in _WATCHED[_checked(task)] if name != key_metric]


def check_score(name: str, task: str) -> None:
    """Refuse a metric that the task does not have.

    Raises:
        ConfigError: naming those it has.
    """
    known = _NAMES[_checked(task)]
    if name not in known:
        elsewhere = [other for other, names in _NAMES.items() if name in names]
        raise ConfigError(
            f"there is no metric '{name}'" + (f" for task {task}, it is one of {elsewhere[0]}" if elsewhere else ""),
            where="key_metric",
            remedy=f"one of: {', '.join(known)}",
        )


def _checked(task: str) -> str:
    if task not in _REPORTS:
        raise ConfigError(f"task={task!r}", remedy=f"use one of {', '.join(_REPORTS)}")
    return task
