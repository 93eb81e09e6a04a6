"""Bootstrap intervals against a plain loop and against known spreads."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from medmamba_monai.benchmarks.intervals import balanced_accuracies, interval

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 60)
PREDICTIONS = np.where(RNG.random(60) < 0.7, LABELS, RNG.integers(0, 3, 60))
GROUPS = [f"g{number // 2}" for number in range(60)]


def test_equals_a_loop_over_resampled_images() -> None:
    values = balanced_accuracies(LABELS.tolist(), PREDICTIONS.tolist(), GROUPS, resamples=20, seed=3)
    names = np.unique(GROUPS)
    drawn = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=20)
    for value, counts in zip(values, drawn, strict=True):
        rows = [
            i
            for name, n in zip(names, counts, strict=True)
            for _ in range(n)
            for i in np.flatnonzero(np.array(GROUPS) == name)
        ]
        assert value == pytest.approx(balanced_accuracy_score(LABELS[rows], PREDICTIONS[rows]))


def test_groups_widen_the_interval() -> None:
    """Ten copies of an image are no more evidence than one."""
    labels, predictions = np.repeat(LABELS, 10).tolist(), np.repeat(PREDICTIONS, 10).tolist()
    copies = np.repeat(np.arange(60), 10).astype(str).tolist()
    apart = [str(number) for number in range(600)]
    low, high = interval(balanced_accuracies(labels, predictions, copies))
    low_apart, high_apart = interval(balanced_accuracies(labels, predictions, apart))
    assert (high - low) > 2 * (high_apart - low_apart)
