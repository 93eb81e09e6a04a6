"""Areas and average precisions under weights equal scikit-learn's with sample_weight, ties and all."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medmamba_monai.metrics.ranks import WeightedRanks


@pytest.mark.parametrize("decimals", [1, 6])
def test_equals_scikit_learn_weight_by_weight(decimals: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(80) < 0.3
    values = np.round(rng.random(80) + 0.2 * truth, decimals)
    weights = rng.multinomial(80, np.full(80, 1 / 80), size=20).T.astype(float)
    areas, averages = WeightedRanks(truth, values)(weights)
    for area, average, weight in zip(areas, averages, weights.T, strict=True):
        assert area == pytest.approx(roc_auc_score(truth, values, sample_weight=weight))
        assert average == pytest.approx(average_precision_score(truth, values, sample_weight=weight))


def test_what_a_resample_lacks_leaves_it_undefined() -> None:
    ranks = WeightedRanks(np.array([True, True, False]), np.array([0.9, 0.2, 0.5]))
    areas, averages = ranks(np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 1]]).T)
    assert np.isnan(areas[[0, 1]]).all() is np.True_
    areas, averages = ranks(np.array([[0.0, 0.0, 2.0], [1.0, 1.0, 0.0]]).T)
    assert np.isnan(areas).all()
    assert np.isnan(averages[0]) and averages[1] == 1.0


@pytest.mark.parametrize(("label", "average"), [(True, 1.0), (False, np.nan)])
def test_one_class_only(label: bool, average: float) -> None:
    areas, averages = WeightedRanks(np.full(3, label), np.array([0.1, 0.2, 0.3]))(np.ones((3, 2)))
    assert np.isnan(areas).all()
    np.testing.assert_array_equal(averages, [average, average])
