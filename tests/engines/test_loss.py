"""The losses of both tasks against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medmamba_monai.engines import MultiLabelLoss, classification_loss
from medmamba_monai.errors import ConfigError

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-30.0, 40.0, 0.0]])
LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_binary_cross_entropy_by_its_formula(weights: list[float] | None, smoothing: float) -> None:
    loss = classification_loss("multilabel", None if weights is None else torch.tensor(weights), smoothing)
    z, y = LOGITS.double().numpy(), LABELS.double().numpy() * (1 - smoothing) + smoothing / 2
    w = np.ones(3) if weights is None else np.array(weights)
    expected = (w * y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)).mean()
    assert float(loss(LOGITS, LABELS)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(LOGITS, LABELS.long())) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_that_of_torch() -> None:
    ours, theirs = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    MultiLabelLoss(torch.tensor([1.0, 2.0, 3.0]))(ours, LABELS).backward()
    nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0]))(theirs, LABELS).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_one_class_an_image_has_cross_entropy() -> None:
    loss = classification_loss("multiclass", torch.tensor([1.0, 2.0]), 0.1)
    assert isinstance(loss, nn.CrossEntropyLoss)
    assert loss.label_smoothing == 0.1
    assert loss.weight.tolist() == [1.0, 2.0]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"labels of shape \(2,\) do not fit logits of shape \(2, 3\)"):
        MultiLabelLoss()(LOGITS, torch.tensor([0, 2]))
    with pytest.raises(ConfigError, match="label_smoothing=1"):
        MultiLabelLoss(label_smoothing=1)
    with pytest.raises(ConfigError, match="task='multi'"):
        classification_loss("multi")
