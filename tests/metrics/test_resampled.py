"""Weights of one are the report; a resample is the report of the images drawn, each as often as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medmamba_monai.metrics import classification_report, multilabel_report
from medmamba_monai.metrics.bootstrap import draw_weights
from medmamba_monai.metrics.classification import multiclass_predictions
from medmamba_monai.metrics.multilabel import multilabel_predictions

NAMES = ["a", "b", "c"]


def predictions(task: str, seed: int = 0, classes: int = 3, ties: bool = True) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(seed)
    if task == "multiclass":
        labels = rng.integers(0, 2, 60)
        labels[[4, 30]] = classes - 1
        scores = rng.random((60, classes)) + 0.5 * np.eye(classes)[labels]
        scores = np.ceil(scores * 6) if ties else scores
        return labels, scores / scores.sum(1, keepdims=True)
    labels = (rng.random((60, 3)) < [0.5, 0.3, 0.0]).astype(int)
    labels[[4, 30], 2] = 1
    return labels, np.round(np.clip(0.4 * labels + rng.random((60, 3)) * 0.6, 0, 1), 1 if ties else 8)


def compare(found: dict[Any, Any], index: int, report: dict[str, Any]) -> int:
    """Every value of a resample against a report; how many were undefined in both."""
    undefined = 0
    for (metric, name), values in found.items():
        expected = (report if name is None else report["per_class"][name])[metric]
        if expected is None:
            undefined += 1
            assert np.isnan(values[index]), (metric, name)
        else:
            assert values[index] == pytest.approx(expected, abs=1e-12), (metric, name)
    return undefined


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("classes", [2, 3])
def test_each_resample_is_the_report_of_what_was_drawn(task: str, classes: int) -> None:
    labels, values = predictions(task, classes=classes)
    names = NAMES[: values.shape[1]]
    member = np.arange(60) // 3
    make, report = {
        "multiclass": (multiclass_predictions, classification_report),
        "multilabel": (multilabel_predictions, multilabel_report),
    }[task]
    weights = np.concatenate([np.ones((1, 20)), draw_weights(20, 30, seed=1)])
    found = make(labels, values, names).resampled(member)(weights)
    metrics = {key[0] for key in found}
    whole = report(labels, values, names)
    assert metrics >= {name for name, value in whole.items() if isinstance(value, float)} - {"threshold"}
    undefined = 0
    for index, weight in enumerate(weights):
        rows = np.repeat(np.arange(60), weight[member].astype(int))
        undefined += compare(found, index, report(labels[rows], values[rows], names))
    assert undefined > 0 or classes == 2


def test_scores_without_probabilities_have_no_losses() -> None:
    labels, values = predictions("multiclass")
    found = multiclass_predictions(labels, values * 7, NAMES).resampled(np.arange(60))(np.ones((1, 60)))
    assert not {"brier", "log_loss", "ece"} & {metric for metric, _ in found}
    assert ("auc", "a") in found
