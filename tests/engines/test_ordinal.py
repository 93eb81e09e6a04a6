"""The distance equals an optimal transport found by other means; gradients, weights, and that order matters."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import energy_distance
from torch import nn

from medmamba_monai.engines.ordinal import OrdinalLoss, squared_earth_mover
from medmamba_monai.errors import ConfigError


def sample(classes: int = 5, count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (count,), generator=generator)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_equals_the_integral_over_squared_cumulative_distributions(classes: int) -> None:
    logits, labels = sample(classes)
    places = list(range(classes))
    found = squared_earth_mover(logits, labels)
    for number, row in enumerate(logits.softmax(1).tolist()):
        # scipy's energy distance is the square root of twice that integral
        expected = energy_distance(places, [int(labels[number])], u_weights=row) ** 2 / 2
        assert float(found[number]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_certain_prediction_costs_its_distance() -> None:
    logits = 200 * torch.eye(5)
    for label in range(5):
        found = squared_earth_mover(logits, torch.full((5,), label))
        torch.testing.assert_close(found, (torch.arange(5) - label).abs().float())


def test_without_distance_it_is_cross_entropy() -> None:
    logits, labels = sample()
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0], dtype=torch.float64)
    loss = OrdinalLoss(0, weight=weight, label_smoothing=0.1)
    expected = nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1)(logits, labels)
    torch.testing.assert_close(loss(logits, labels), expected)


def test_class_weights_act_as_repeated_samples() -> None:
    logits, _ = sample(3, 4)
    labels = torch.tensor([0, 1, 2, 1])
    weighted = OrdinalLoss(weight=torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64))(logits, labels)
    rows = [0, 1, 1, 2, 3, 3]
    torch.testing.assert_close(weighted, OrdinalLoss()(logits[rows], labels[rows]), check_dtype=False)


def test_order_matters() -> None:
    logits, labels = sample()
    order = torch.tensor([0, 2, 4, 1, 3])
    shuffled = OrdinalLoss()(logits[:, order], torch.argsort(order)[labels])
    assert abs(float(shuffled - OrdinalLoss()(logits, labels))) > 0.01
    plain = OrdinalLoss(0)(logits[:, order], torch.argsort(order)[labels])
    torch.testing.assert_close(plain, OrdinalLoss(0)(logits, labels))


def test_the_gradient_is_that_of_finite_differences() -> None:
    logits, labels = sample(4, 3)
    step = 1e-2  # the distance is computed in float32
    logits.requires_grad_()
    squared_earth_mover(logits, labels).sum().backward()
    assert logits.grad is not None
    for place in [(0, 0), (1, 3), (2, 1)]:
        ends = []
        for sign in (1, -1):
            moved = logits.detach().clone()
            moved[place] += sign * step
            ends.append(float(squared_earth_mover(moved, labels).double().sum()))
        assert float(logits.grad[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-3)


def test_it_pulls_in_and_is_finite_in_bfloat16() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 60.0]], dtype=torch.bfloat16, requires_grad=True)
    loss = OrdinalLoss()(logits, torch.tensor([0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert logits.grad[0, 0] < 0 < logits.grad[0, 3]


def test_weights_move_with_the_loss_and_a_negative_distance_is_refused() -> None:
    assert OrdinalLoss(weight=torch.ones(3)).to(torch.float64).state_dict()["weight"].dtype == torch.float64
    with pytest.raises(ConfigError, match="distance=-1"):
        OrdinalLoss(-1)


def test_several_classes_an_image_are_no_grades() -> None:
    with pytest.raises(ConfigError, match="task multilabel has no grades"):
        OrdinalLoss(task="multilabel")
