"""The score an engine computes equals the one of the whole set, whatever the form of its output."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from medmamba_monai.errors import ConfigError
from medmamba_monai.metrics import ValidationScore, predictions_and_labels


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(20) % 3
    return torch.rand(20, 3, generator=generator) + torch.eye(3)[labels], labels


@pytest.mark.parametrize("form", ["batched", "decollated", "one-hot", "column"])
def test_equals_scikit_learn_in_batches(form: str) -> None:
    logits, labels = data()

    def step(engine: Engine, rows: list[int]) -> Any:
        one_hot = torch.eye(3)[labels[rows]]
        if form == "decollated":
            return [{"pred": logits[row], "label": int(labels[row])} for row in rows]
        if form == "column":
            return {"pred": logits[rows], "label": labels[rows][:, None]}
        return {"pred": logits[rows], "label": one_hot if form == "one-hot" else labels[rows]}

    engine = Engine(step)
    ValidationScore("auc", softmax=True).attach(engine, "auc")
    ValidationScore().attach(engine, "accuracy")
    engine.run([list(range(start, min(start + 6, 20))) for start in range(0, 20, 6)])
    assert engine.state.metrics["auc"] == pytest.approx(
        roc_auc_score(labels, torch.softmax(logits.double(), 1), multi_class="ovr")
    )
    assert engine.state.metrics["accuracy"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))
    assert type(engine.state.metrics["auc"]) is float


def test_undefined_and_not_finite_are_nan(caplog: pytest.LogCaptureFixture) -> None:
    metric = ValidationScore("auc")
    metric.update((torch.tensor([[0.9, 0.1]]), torch.tensor([0])))
    assert math.isnan(metric.compute())
    metric.update((torch.tensor([[math.nan, 0.1]]), torch.tensor([1])))
    assert math.isnan(metric.compute())
    assert "1 of 2 predictions are not finite" in caplog.text


def test_reset_and_no_samples() -> None:
    metric = ValidationScore("accuracy")
    metric.update((torch.tensor([[0.9, 0.1]]), torch.tensor([1])))
    metric.reset()
    with pytest.raises(NotComputableError):
        metric.compute()
    metric.update((torch.tensor([[0.9, 0.1]]), torch.tensor([0])))
    assert metric.compute() == 1.0


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="no metric 'kapa'.*accuracy, balanced_accuracy"):
        ValidationScore("kapa")


def test_labels_of_meta_tensors() -> None:
    predictions, labels = predictions_and_labels([{"pred": np.array([0.1, 0.9]), "label": torch.tensor([0, 1])}])
    assert predictions.shape == (1, 2)
    assert labels.tolist() == [1]


@pytest.mark.parametrize("decollated", [True, False])
def test_several_classes_an_image(decollated: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(20, 3, generator=generator) < 0.4).float()
    logits = torch.randn(20, 3, generator=generator) + labels

    def step(engine: Engine, rows: list[int]) -> Any:
        if decollated:
            return [{"pred": logits[row], "label": labels[row]} for row in rows]
        return {"pred": logits[rows], "label": labels[rows]}

    engine = Engine(step)
    for name in ("auc", "exact_match"):
        ValidationScore(name, softmax=True, task="multilabel").attach(engine, name)
    engine.run([list(range(start, min(start + 6, 20))) for start in range(0, 20, 6)])
    assert engine.state.metrics["auc"] == pytest.approx(roc_auc_score(labels, logits, average="macro"))
    expected = ((logits >= 0) == labels.bool()).all(1).float().mean()
    assert engine.state.metrics["exact_match"] == pytest.approx(float(expected))


def test_an_absent_class_makes_the_mean_undefined() -> None:
    metric = ValidationScore("auc", task="multilabel")
    metric.update((torch.rand(4, 2), torch.tensor([[0, 0], [1, 0], [0, 0], [1, 0]])))
    assert math.isnan(metric.compute())
    with pytest.raises(ConfigError, match="'balanced_accuracy' for task multilabel"):
        ValidationScore("balanced_accuracy", task="multilabel")
