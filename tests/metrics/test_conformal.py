"""Prediction sets: the promise is tested by simulation, the threshold by a sorted list."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from medmamba_monai.errors import ConfigError
from medmamba_monai.metrics.conformal import conformal_threshold, coverage_report, least_images, prediction_sets


def world(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of five classes and a network that is much too sure of itself."""
    logits = 1.2 * rng.normal(size=(n, 5))
    labels = np.array([rng.choice(5, p=row) for row in softmax(logits, axis=1)])
    return labels, softmax(4 * logits, axis=1)


@pytest.mark.parametrize(("alpha", "n"), [(0.1, 49), (0.25, 17)])
def test_the_promise_is_kept_on_average_and_not_by_more_than_theory_allows(alpha: float, n: int) -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(300):
        threshold = conformal_threshold(*world(rng, n), alpha)
        assert threshold is not None
        labels, probabilities = world(rng, 40)
        held.append(prediction_sets(probabilities, threshold)[np.arange(40), labels].mean())
    error = 4 * np.std(held) / np.sqrt(len(held))
    assert 1 - alpha - error <= np.mean(held) <= 1 - alpha + 1 / (n + 1) + error


def test_a_quantile_without_the_finite_sample_correction_would_break_it() -> None:
    """The test above can fail: the plain quantile of 17 scores covers too little."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(300):
        labels, probabilities = world(rng, 17)
        threshold = float(np.quantile(1 - probabilities[np.arange(17), labels], 0.75, method="lower"))
        labels, probabilities = world(rng, 40)
        held.append(prediction_sets(probabilities, threshold)[np.arange(40), labels].mean())
    assert np.mean(held) < 0.75 - 4 * np.std(held) / np.sqrt(len(held))


def test_the_threshold_is_an_order_statistic() -> None:
    labels, probabilities = world(np.random.default_rng(1), 99)
    scores = sorted(1 - probabilities[np.arange(99), labels])
    for alpha, rank in [(0.1, 90), (0.05, 95), (0.01, 99)]:
        assert conformal_threshold(labels, probabilities, alpha) == pytest.approx(scores[rank - 1])


def test_too_few_images_promise_nothing() -> None:
    labels, probabilities = world(np.random.default_rng(2), 8)
    assert conformal_threshold(labels, probabilities, 0.1) is None
    assert [least_images(alpha) for alpha in (0.5, 0.1, 0.05, 0.01, 0.3)] == [1, 9, 19, 99, 3]
    for alpha in (0, 1, -0.1):
        with pytest.raises(ConfigError, match="outside 0 to 1"):
            conformal_threshold(labels, probabilities, alpha)


def test_the_report_counts() -> None:
    probabilities = [[0.7, 0.2, 0.1], [0.5, 0.45, 0.05], [0.4, 0.3, 0.3], [0.2, 0.1, 0.7]]
    report = coverage_report([0, 1, 2, 0], probabilities, ["a", "b", "c"], threshold=0.58, alpha=0.2)
    assert report["sizes"] == {"0": 1, "1": 2, "2": 1, "3": 0}
    assert report["coverage"] == 0.5
    assert report["mean_set_size"] == 1.0
    assert report["per_class"] == {"a": 0.5, "b": 1.0, "c": 0.0}
    low, high = report["coverage_interval"]
    assert (low, high) == pytest.approx((0.0676, 0.9324), abs=1e-4)  # Clopper-Pearson for 2 of 4
