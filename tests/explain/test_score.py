"""The score that is explained: log-odds, for softmax and sigmoids."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai.errors import ConfigError, DataError
from medmamba_monai.explain.score import as_targets, log_odds, probabilities

LOGITS = torch.tensor([[0.3, -1.2, 2.0], [4.0, 0.0, -3.0]], dtype=torch.float64)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_scores_are_the_log_odds_of_the_probabilities(task: str) -> None:
    targets = torch.tensor([2, 1])
    p = probabilities(LOGITS, task).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(log_odds(LOGITS, targets, task), torch.log(p / (1 - p)))


def test_a_single_class_is_a_sigmoid() -> None:
    logits = torch.tensor([[0.7]])
    assert torch.equal(log_odds(logits, torch.tensor([0])), logits[:, 0])
    assert torch.equal(probabilities(logits), logits.sigmoid())


def test_targets_are_the_predicted_class_or_what_is_given() -> None:
    assert as_targets(None, LOGITS).tolist() == [2, 0]
    assert as_targets(1, LOGITS).tolist() == [1, 1]
    assert as_targets([0, 2], LOGITS).tolist() == [0, 2]


@pytest.mark.parametrize("targets", [3, -1, [0], [0.0, 1.0], [True, False]])
def test_targets_that_do_not_fit_are_refused(targets: object) -> None:
    with pytest.raises(ConfigError, match="targets"):
        as_targets(targets, LOGITS)  # type: ignore[arg-type]


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match=r"images \[1\]"):
        as_targets(None, torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]))
