"""Thresholds against a loop over all of them, and scores against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from medmamba_monai.errors import ConfigError
from medmamba_monai.metrics.thresholds import CRITERIA, best_threshold, fit_thresholds, thresholded


def worth(positive: np.ndarray, scores: np.ndarray, threshold: float, criterion: str) -> float:
    called = scores >= threshold
    if criterion == "f1":
        return float(f1_score(positive, called, zero_division=0.0))
    return float(recall_score(positive, called) + recall_score(~positive, ~called) - 1)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("seed", range(4))
def test_no_other_threshold_is_better(criterion: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.3
    scores = np.round(rng.random(60) * 0.5 + 0.3 * positive, 2)  # with ties
    found = best_threshold(positive, scores, criterion)
    assert found is not None
    best = max(worth(positive, scores, t, criterion) for t in np.unique(scores))
    assert worth(positive, scores, found, criterion) == pytest.approx(best)
    assert found not in scores, "halfway between scores, where rounding cannot move an image"


def test_where_no_threshold_helps_there_is_none() -> None:
    assert best_threshold([1, 1], [0.2, 0.9]) is None
    assert best_threshold([0, 0, 1], [0.5, 0.6, 0.1]) is None
    with pytest.raises(ConfigError, match="one of youden, f1"):
        best_threshold([0, 1], [0, 1], "accuracy")


def test_two_classes_have_one_threshold_and_more_have_one_each() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 100)
    second = np.clip(0.3 * labels + 0.6 * rng.random(100), 0, 1)
    found, remarks = fit_thresholds(labels, np.stack([1 - second, second], 1), ["no", "yes"])
    assert list(found) == ["yes"]
    assert remarks == []
    three = rng.dirichlet([1, 1, 1], 100)
    found, _ = fit_thresholds(rng.integers(0, 3, 100), three, ["a", "b", "c"])
    assert list(found) == ["a", "b", "c"]


def test_rare_classes_get_a_remark_in_place_of_a_number() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2] * 4)
    probabilities = np.eye(3)[labels] * 0.6 + 0.4 / 3
    found, remarks = fit_thresholds(labels, probabilities, ["a", "b", "c"])
    assert found["c"] is None
    assert found["a"] is not None
    assert remarks == ["no threshold for 'c': it needs 5 images with and without this class, there are 4 and 40"]
    found, remarks = fit_thresholds([0, 1] * 10, [[0.5, 0.5]] * 20, ["a", "b"])
    assert found == {"b": None}
    assert "chance" in remarks[0]


def test_scores_at_thresholds_are_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random((80, 3)) < 0.4).astype(int)
    values = np.clip(0.4 * labels + 0.6 * rng.random((80, 3)), 0, 1)
    limits = {"a": 0.3, "b": 0.5, "c": 0.61}
    result = thresholded(labels, values, list(limits), limits, "multilabel")
    called = values >= np.array(list(limits.values()))
    for index, name in enumerate(limits):
        scores, truth, said = result["per_class"][name], labels[:, index], called[:, index]
        assert scores["sensitivity"] == pytest.approx(recall_score(truth, said))
        assert scores["specificity"] == pytest.approx(recall_score(1 - truth, ~said))
        assert scores["precision"] == pytest.approx(precision_score(truth, said))
        assert scores["f1"] == pytest.approx(f1_score(truth, said))
        assert scores["tp"] + scores["fp"] + scores["fn"] + scores["tn"] == 80
    assert result["exact_match"] == pytest.approx((called == labels).all(1).mean())
    assert result["hamming_loss"] == pytest.approx((called != labels).mean())
    assert "exact_match" not in thresholded(labels, values, list(limits), {**limits, "a": None}, "multilabel")


def test_two_classes_also_have_accuracies_and_nothing_is_divided_by_zero() -> None:
    second = np.array([0.1, 0.4, 0.6, 0.9])
    result = thresholded([0, 1, 1, 1], np.stack([1 - second, second], 1), ["no", "yes"], {"yes": 0.5})
    assert result["accuracy"] == 0.75
    assert result["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    alone = thresholded([1], [[0.8, 0.2]], ["no", "yes"], {"yes": 0.5})
    assert alone["per_class"]["yes"]["specificity"] is None
    assert alone["per_class"]["yes"]["precision"] is None
    assert alone["balanced_accuracy"] is None
