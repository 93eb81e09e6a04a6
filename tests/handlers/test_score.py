"""Which validation score is the best so far."""

from __future__ import annotations

import math

import pytest
from ignite.engine import Engine

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers.score import BestScore, key_score


def best_of(scores: list[float], mode: str) -> tuple[float, int]:
    best = BestScore(mode)
    for epoch, score in enumerate(scores, start=1):
        best.update(score, epoch)
    return best.value, best.epoch


@pytest.mark.parametrize(("mode", "expected"), [("max", (0.9, 3)), ("min", (0.1, 4))])
def test_best_over_finite_scores(mode: str, expected: tuple[float, int]) -> None:
    assert best_of([math.nan, 0.5, 0.9, 0.1, math.nan, math.inf, -math.inf, 0.9, 0.1], mode) == expected


def test_margin() -> None:
    best = BestScore()
    assert best.update(0.5, 1)
    assert not best.update(0.55, 2, margin=0.1)
    assert best.update(0.61, 3, margin=0.1)


def test_only_undefined_scores_leave_no_best() -> None:
    value, epoch = best_of([math.nan, math.nan], "max")
    assert math.isnan(value)
    assert epoch == 0


def test_unknown_mode() -> None:
    with pytest.raises(ConfigError, match="mode='best'"):
        BestScore("best")


def test_key_score_warns_of_undefined_values(caplog: pytest.LogCaptureFixture) -> None:
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.metrics = {"auc": math.nan, "f1": 0.5}
    evaluator.state.epoch = 4
    assert key_score(evaluator, "f1", "test") == ("f1", 0.5)
    name, value = key_score(evaluator, "auc", "test")
    assert name == "auc"
    assert math.isnan(value)
    assert "auc of epoch 4 is undefined" in caplog.text
    with pytest.raises(ConfigError, match=r"test\.key_metric: the evaluator has no metric None; it has: auc, f1"):
        key_score(evaluator, None, "test")
