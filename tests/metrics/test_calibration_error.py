"""Bins, gaps and edges against a plain loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medmamba_monai.errors import DataError
from medmamba_monai.metrics.calibration_error import bin_numbers, expected_calibration_error, reliability_bins


def test_equals_a_loop_over_bins() -> None:
    rng = np.random.default_rng(0)
    stated = np.concatenate([rng.random(200), [0.0, 1.0, 0.5]])
    right = rng.random(203) < stated**2
    error, entries = 0.0, reliability_bins(stated, right, 10)
    for index, entry in enumerate(entries):
        inside = (stated > index / 10) & (stated <= (index + 1) / 10)
        if index == 0:
            inside |= stated == 0
        assert entry["n"] == inside.sum() > 0
        assert entry["confidence"] == pytest.approx(stated[inside].mean())
        assert entry["accuracy"] == pytest.approx(right[inside].mean())
        error += inside.mean() * abs(stated[inside].mean() - right[inside].mean())
    assert expected_calibration_error(stated, right, 10) == pytest.approx(error)


def test_a_calibrated_and_an_overconfident_network() -> None:
    rng = np.random.default_rng(0)
    stated = rng.random(20_000)
    assert expected_calibration_error(stated, rng.random(20_000) < stated) < 0.02
    assert expected_calibration_error(np.full(1000, 0.99), np.arange(1000) % 2) == pytest.approx(0.49)


def test_empty_bins_have_no_numbers() -> None:
    entry = reliability_bins([0.9], [1], 2)[0]
    assert entry == {"low": 0.0, "high": 0.5, "n": 0, "confidence": None, "accuracy": None}
    assert bin_numbers([[0.0, 1.0]]).tolist() == [[0, 14]]


@pytest.mark.parametrize(
    ("stated", "right", "words"),
    [([], [], "do not fit"), ([0.5], [1, 0], "do not fit"), ([1.2], [1], "outside"), ([float("nan")], [1], "outside")],
)
def test_what_is_no_probability(stated: Any, right: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        expected_calibration_error(stated, right)
