"""Risk-coverage curves against a loop over random orders."""

from __future__ import annotations

import numpy as np
import pytest

from medmamba_monai.errors import DataError
from medmamba_monai.metrics.referral import confidence_and_error, referral_report, risk_coverage


def test_ties_count_as_the_mean_over_their_orders() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, 4, 30) / 4
    errors = (rng.random(30) < 0.4).astype(float)
    curves = []
    for _ in range(4000):
        order = np.lexsort((rng.random(30), -confidence))
        curves.append(np.cumsum(errors[order]) / np.arange(1, 31))
    np.testing.assert_allclose(risk_coverage(confidence, errors), np.mean(curves, axis=0), atol=0.03)


def test_a_report_of_a_network_that_knows_its_errors() -> None:
    probabilities = [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.45, 0.55]]
    report = referral_report([0, 1, 0, 0], probabilities)
    assert report["curve"] == [[0.25, 0.0], [0.5, 0.0], [0.75, 0.0], [1.0, 0.25]]
    assert report["aurc"] == report["aurc_best"] == 0.0625
    assert report["at"]["0.5"] == 0.0
    assert report["at"]["1"] == 0.25
    worst = referral_report([1, 1, 0, 1], probabilities)
    assert worst["aurc"] > worst["aurc_best"]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1], 1000)
    labels = rng.integers(0, 2, 1000)
    report = referral_report(labels, probabilities)
    assert len(report["curve"]) == 200
    assert report["curve"][0][0] == 0.001
    assert report["curve"][-1] == [1.0, pytest.approx((probabilities.argmax(1) != labels).mean())]


def test_several_labels_have_confidence_and_error_by_answer() -> None:
    confidence, errors = confidence_and_error([[1, 0], [1, 1]], [[0.9, 0.2], [0.4, 0.5]], "multilabel")
    np.testing.assert_allclose(confidence, [0.85, 0.55])
    np.testing.assert_allclose(errors, [0.0, 0.5])
    assert referral_report([[1, 0], [1, 1]], [[0.9, 0.2], [0.4, 0.5]], "multilabel")["risk"] == "hamming_loss"


def test_what_does_not_fit_is_refused() -> None:
    for pair in (([], []), ([0.5], [0, 1])):
        with pytest.raises(DataError):
            risk_coverage(*pair)
