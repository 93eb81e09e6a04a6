"""The learning rate follows its formula, and its state is resumable."""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import pytest
import torch

from medmamba_monai.engines import warmup_cosine
from medmamba_monai.errors import ConfigError


def make(lr: float = 2.0, **options: Any) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    return optimizer, warmup_cosine(optimizer, **options)


def rates(optimizer: torch.optim.Optimizer, schedule: Any, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_formula() -> None:
    found = rates(*make(total_steps=20, warmup_steps=5, min_factor=0.1), 25)
    for step, rate in enumerate(found):
        if step < 5:
            expected = 2.0 * (step + 1) / 5
        else:
            progress = min(1.0, (step - 5) / 15)
            expected = 2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))
        assert rate == pytest.approx(expected), step
    assert found[4] == found[5] == 2.0
    assert found[20:] == pytest.approx([0.2] * 5)


def test_extremes() -> None:
    assert rates(*make(total_steps=3, warmup_steps=0), 1) == [2.0]
    assert rates(*make(total_steps=2, warmup_steps=2), 2) == [1.0, 2.0]
    assert rates(*make(total_steps=4, warmup_steps=0, min_factor=1.0), 4) == [2.0] * 4


def test_state_is_plain_and_leaves_the_length_to_the_new_run() -> None:
    optimizer, schedule = make(total_steps=10, warmup_steps=2)
    whole = rates(optimizer, schedule, 10)
    optimizer, schedule = make(total_steps=10, warmup_steps=2)
    first = rates(optimizer, schedule, 4)
    stream = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, stream)
    stream.seek(0)
    state = torch.load(stream, weights_only=True)
    for total, expected in ((10, whole), (20, rates(*make(total_steps=20, warmup_steps=2), 10))):
        optimizer, schedule = make(total_steps=total, warmup_steps=2)
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rest = rates(optimizer, schedule, 6)
        assert rest[1:] == pytest.approx(expected[5:])
    assert first == whole[:4]


@pytest.mark.parametrize(
    "options",
    [
        {"total_steps": 0},
        {"total_steps": 5, "warmup_steps": 6},
        {"total_steps": 5, "warmup_steps": -1},
        {"total_steps": 5, "min_factor": 1.5},
    ],
)
def test_nonsense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make(**options)
