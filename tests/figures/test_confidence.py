"""Reliability against scikit-learn's calibration curve, risk and coverage against a loop, Wilson against SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from medmamba_monai.figures import Heading
from medmamba_monai.figures.confidence import reliability, risk_coverage, risks_of, wilson
from medmamba_monai.figures.truth import answers
from medmamba_monai.metrics import report_of
from medmamba_monai.metrics.calibration_error import BINS


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_reliability_is_the_calibration_curve(table: Any, heading: Heading, task: str) -> None:
    given = table(["a", "b", "c"], task=task)
    found = answers(given)
    shifted = np.clip(found.confidence, None, 1 - 1e-9) - 1e-9  # scikit-learn's bins are open on the other side
    right, sure = calibration_curve(found.correct, np.clip(shifted, 0, 1), n_bins=BINS)
    axis, counts = reliability(given, {}, heading).axes
    np.testing.assert_allclose(axis.lines[1].get_xdata(), sure, atol=1e-6)
    np.testing.assert_allclose(axis.lines[1].get_ydata(), right)
    assert sum(bar.get_height() for bar in counts.patches) == len(found.correct)


def test_bins_of_metrics_go_first(table: Any, heading: Heading) -> None:
    bins = [{"low": 0.0, "high": 0.5, "n": 0, "confidence": None, "accuracy": None}]
    bins += [{"low": 0.5, "high": 1.0, "n": 90, "confidence": 0.7, "accuracy": 0.9}]
    figure = reliability(table(), {"reliability": {"bins": bins}, "ece": 0.2}, heading)
    assert figure.axes[0].lines[1].get_xdata().tolist() == [0.7]
    assert "0.200" in figure.get_suptitle()


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_risk_and_coverage(table: Any, heading: Heading, task: str) -> None:
    given = table(["a", "b", "c"], task=task)
    found = answers(given)
    axis = risk_coverage(given, report_of(task)(given.labels, given.probabilities, ["a", "b", "c"]), heading).axes[0]
    x, y = axis.lines[0].get_data()
    for coverage, risk in zip(x, y, strict=True):
        least = np.sort(found.confidence)[::-1][round(coverage * len(found.confidence)) - 1]
        kept = found.confidence >= least
        assert kept.mean() == pytest.approx(coverage)
        assert (~found.correct[kept]).mean() == pytest.approx(risk)
    assert y[-1] == pytest.approx((~found.correct).mean())


def test_a_referral_curve_in_metrics_goes_first(table: Any, heading: Heading) -> None:
    figure = risk_coverage(table(), {"referral": {"curve": [[0.5, 0.0], [1.0, 0.25]], "aurc": 0.125}}, heading)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.0, 0.25]
    assert "0.125" in figure.get_suptitle()


def test_no_error_at_all(table: Any, heading: Heading) -> None:
    given = table()
    given.probabilities[:] = np.eye(2)[given.labels]
    assert risk_coverage(given, {}, heading).axes[0].get_ylim()[1] > 0
    assert risks_of(answers(given))[1].tolist() == [0.0]
    reliability(given, {}, heading)


@pytest.mark.parametrize(("right", "count"), [(0, 5), (3, 10), (10, 10), (70, 100)])
def test_wilson(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-7)
