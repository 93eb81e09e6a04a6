"""Metrics: pure functions on labels and probabilities, and the validation score engines compute from them.

May import ``errors``; knows neither engines, handlers nor data.
"""

from medmamba_monai.metrics.classification import SCORE_NAMES, classification_report, confusion_matrix, score
from medmamba_monai.metrics.multilabel import MULTILABEL_SCORE_NAMES, multilabel_report
from medmamba_monai.metrics.table import PredictionTable
from medmamba_monai.metrics.tasks import (
    LOSSES,
    check_score,
    default_score,
    evaluation_of,
    predictions_of,
    report_of,
    score_mode,
    score_names,
    watched_scores,
)
from medmamba_monai.metrics.validation import ValidationScore, predictions_and_findings, predictions_and_labels

__all__ = [
    "LOSSES",
    "MULTILABEL_SCORE_NAMES",
    "SCORE_NAMES",
    "PredictionTable",
    "ValidationScore",
    "check_score",
    "classification_report",
    "confusion_matrix",
    "default_score",
    "evaluation_of",
    "multilabel_report",
    "predictions_and_findings",
    "predictions_and_labels",
    "predictions_of",
    "report_of",
    "score",
    "score_mode",
    "score_names",
    "watched_scores",
]
