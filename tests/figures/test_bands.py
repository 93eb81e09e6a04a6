"""Bands against scikit-learn's curves of every resample, drawn one by one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from medmamba_monai.figures.bands import cluster_weights, precision_recall_band, roc_band

GRID = np.linspace(0, 1, 21)


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    truth = rng.random(40) < 0.4
    scores = np.round(rng.random(40) * 0.6 + 0.4 * truth, 2)  # with ties
    return truth, scores, cluster_weights([str(index // 2) for index in range(40)], 60, seed=1)


def test_roc_band(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    truth, scores, weights = case
    curves = []
    for row in weights:
        index = np.repeat(np.arange(40), row.astype(int))
        false, true, _ = roc_curve(truth[index], scores[index], drop_intermediate=False)
        curves.append(np.interp(GRID, false, true))
    np.testing.assert_allclose(roc_band(truth, scores, weights, GRID), np.percentile(curves, [2.5, 97.5], axis=0))


def test_precision_recall_band(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    truth, scores, weights = case
    curves = []
    for row in weights:
        index = np.repeat(np.arange(40), row.astype(int))
        precision, recall, _ = precision_recall_curve(truth[index], scores[index])
        precision, recall = precision[:-1][::-1], recall[:-1][::-1]  # from the highest threshold on
        curves.append([precision[np.argmax(recall >= place - 1e-12)] for place in GRID[1:]])
    found = precision_recall_band(truth, scores, weights, GRID[1:])
    np.testing.assert_allclose(found, np.percentile(curves, [2.5, 97.5], axis=0))


def test_clusters_stay_together_and_draws_repeat() -> None:
    weights = cluster_weights(["a", "b", "a", "c"], 50, seed=4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert (weights == cluster_weights(["a", "b", "a", "c"], 50, seed=4)).all()
    assert (weights != cluster_weights(["a", "b", "a", "c"], 50, seed=5)).any()


def test_no_band_without_both_kinds() -> None:
    weights = cluster_weights(list("abcd"), 20)
    truth, scores = np.zeros(4, dtype=bool), np.linspace(0, 1, 4)
    assert np.isnan(roc_band(truth, scores, weights, GRID)).all()
    assert np.isnan(precision_recall_band(truth, scores, weights, GRID)).all()
