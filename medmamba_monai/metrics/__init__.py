"""Metrics: pure functions on labels and probabilities, and the validation score engines compute from them.

May import ``errors``; knows neither engines, handlers nor data.
"""

from medmamba_monai.metrics.classification import SCORE_NAMES, classification_report, confusion_matrix, score
from medmamba_monai.metrics.validation import ValidationScore, predictions_and_labels

__all__ = [
    "SCORE_NAMES",
    "ValidationScore",
    "classification_report",
    "confusion_matrix",
    "predictions_and_labels",
    "score",
]
