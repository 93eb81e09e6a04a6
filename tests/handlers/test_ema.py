"""The average of the weights equals its formula, is what validation sees, and survives a resume."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import nn

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers import ExponentialMovingAverage


def test_equals_the_formula(build: Any) -> None:
    handlers: list[ExponentialMovingAverage] = []

    def make(network: Any, evaluator: Any, scheduler: Any) -> list[Any]:
        handlers.append(ExponentialMovingAverage(nn.DataParallel(network), evaluator, decay=0.5))
        return handlers

    training = build(make, epochs=2)
    expected = {name: value.clone() for name, value in training.network.named_parameters()}

    def average(engine: Any) -> None:
        n = engine.state.iteration
        decay = min(0.5, (1 + n) / (10 + n))
        for name, value in training.network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * value.detach()

    training.trainer.add_event_handler(Events.ITERATION_COMPLETED, average)
    training.trainer.run()
    for name, value in handlers[0].average.named_parameters():
        torch.testing.assert_close(value, expected[name])
    assert training.evaluator.network is handlers[0].average


def test_starts_from_the_weights_at_the_start_of_training(build: Any) -> None:
    handlers: list[ExponentialMovingAverage] = []

    def make(network: Any, evaluator: Any, scheduler: Any) -> list[Any]:
        handlers.append(ExponentialMovingAverage(network, decay=0.9))
        return handlers

    training = build(make, epochs=1)
    with torch.no_grad():
        training.network[6].weight.fill_(7.0)  # pretrained weights, loaded after the handlers were made
    seen = []
    training.trainer.add_event_handler(
        Events.STARTED, lambda engine: seen.append(handlers[0].average.state_dict()["6.weight"].clone())
    )
    training.trainer.run()
    assert torch.equal(seen[0], torch.full((2, 4), 7.0))


def test_state_is_restored_before_training_starts() -> None:
    network = nn.Linear(2, 2)
    handler = ExponentialMovingAverage(network)
    state = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    handler.load_state_dict(state)
    assert torch.equal(handler.average.state_dict()["weight"], torch.ones(2, 2))
    assert not torch.equal(network.weight, torch.ones(2, 2))


def test_switched_off_it_does_nothing(build: Any) -> None:
    training = build(
        lambda network, evaluator, scheduler: [ExponentialMovingAverage(network, evaluator, enabled="false")],
        epochs=1,
    )
    training.trainer.run()
    assert training.evaluator.network is training.network


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_decay_outside_its_range(decay: float) -> None:
    with pytest.raises(ConfigError, match="not between 0 and 1"):
        ExponentialMovingAverage(nn.Linear(1, 1), decay=decay)
