"""What figures ask of a table of predictions: which images have a class, how sure an answer is, whether it is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import DataError
from medmamba_monai.metrics import PredictionTable

__all__ = ["Answers", "answers", "labels_of", "positives", "support"]


@dataclass(frozen=True)
class Answers:
    """Every answer of a network with its confidence: one an image, with several labels one an image and class.

    Attributes:
        confidence: (M,) probability that the network gives its own answer.
        correct: (M,).
    """

    confidence: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]


def labels_of(table: PredictionTable) -> npt.NDArray[np.int64]:
    """The labels of a table that has some.

    Raises:
        DataError: it has none.
    """
    if table.labels is None:
        raise DataError(
            "the predictions have no labels to compare with", remedy="evaluate on labelled images, not inference"
        )
    return table.labels


def positives(table: PredictionTable, number: int) -> npt.NDArray[np.bool_]:
    """(N,) which images have the class of this number.

    Raises:
        DataError: the table has no labels.
    """
    labels = labels_of(table)
    found: npt.NDArray[np.bool_] = labels[:, number] == 1 if table.task == "multilabel" else labels == number
    return found


def support(table: PredictionTable) -> list[int]:
    """How many images each class has.

    Raises:
        DataError: the table has no labels.
    """
    return [int(positives(table, number).sum()) for number in range(len(table.class_names))]


def answers(table: PredictionTable, threshold: float = 0.5) -> Answers:
    """Confidence and correctness.

    Args:
        table: predictions.
        threshold: with several labels, from where on a class is predicted.

    Raises:
        DataError: the table has no labels.
    """
    labels, values = labels_of(table), table.probabilities
    if table.task == "multilabel":
        called = values >= threshold
        return Answers(np.where(called, values, 1 - values).ravel(), (called == (labels == 1)).ravel())
    return Answers(values.max(axis=1), values.argmax(axis=1) == labels)
