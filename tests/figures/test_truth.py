"""What is right and how sure it is, against a loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medmamba_monai.errors import DataError
from medmamba_monai.figures.truth import answers, labels_of, positives, support


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_answers(table: Any, task: str) -> None:
    given = table(["a", "b", "c"], task=task)
    confidence, correct = [], []
    for values, label in zip(given.probabilities, given.labels, strict=True):
        if task == "multiclass":
            confidence.append(max(values))
            correct.append(list(values).index(max(values)) == label)
        else:
            confidence += [value if value >= 0.4 else 1 - value for value in values]
            correct += [(value >= 0.4) == bool(flag) for value, flag in zip(values, label, strict=True)]
    found = answers(given, 0.4)
    assert found.confidence.tolist() == pytest.approx(confidence)
    assert found.correct.tolist() == correct


def test_support_and_positives(table: Any) -> None:
    given = table(["a", "b", "c"], empty=(1,))
    assert support(given) == [int((given.labels == number).sum()) for number in range(3)]
    assert support(given)[1] == 0
    several = table(["a", "b"], task="multilabel")
    assert np.array_equal(positives(several, 1), several.labels[:, 1].astype(bool))


def test_without_labels(table: Any) -> None:
    with pytest.raises(DataError, match="no labels"):
        labels_of(replace(table(), labels=None))
