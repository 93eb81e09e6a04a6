"""Intervals against SciPy's bootstrap, against their nominal coverage, and where there must be none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medmamba_monai.metrics import bootstrap
from medmamba_monai.metrics.bootstrap import (
    Interval,
    bca_interval,
    bootstrap_intervals,
    cluster_numbers,
    draw_weights,
)
from medmamba_monai.metrics.classification import classification_report, multiclass_predictions
from medmamba_monai.metrics.delong import delong_areas, delong_interval


def mean_of(sample: np.ndarray) -> object:
    return lambda weights: {("mean", None): weights @ sample / weights.sum(1)}


@pytest.mark.parametrize("count", [40, 700])
def test_equals_scipys_method_up_to_the_draw(count: int) -> None:
    """Also with clusters left out in blocks, where SciPy leaves out one by one."""
    sample = np.random.default_rng(0).exponential(size=count)
    ours = bootstrap_intervals(mean_of(sample), count, resamples=20_000)["mean", None].bounds  # type: ignore[arg-type]
    theirs = stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)
    percentile = stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours is not None
    if count == 40:  # skewed: the correction is seen
        assert ours[1] > percentile.high + 0.03 * width


def test_the_same_seed_draws_the_same() -> None:
    np.testing.assert_array_equal(draw_weights(30, 5, seed=4), draw_weights(30, 5, seed=4))
    assert (draw_weights(30, 5, seed=4) != draw_weights(30, 5, seed=5)).any()
    weights = draw_weights(30, 4000)
    assert (weights.sum(1) == 30).all() and weights.mean(0) == pytest.approx(np.ones(30), abs=0.08)


def test_drawing_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, rows = np.random.default_rng(0).exponential(size=500), []

    def metrics(weights: np.ndarray) -> dict:
        rows.append(len(weights))
        return mean_of(sample)(weights)

    whole = bootstrap_intervals(metrics, 500)
    assert rows == [1, 1000, 200]
    rows.clear()
    monkeypatch.setattr(bootstrap, "AT_ONCE", 500 * 300)
    assert bootstrap_intervals(metrics, 500) == whole
    assert rows == [1, 300, 300, 300, 100, 200]


def test_undefined_resamples_are_counted_and_too_many_leave_no_interval() -> None:
    drawn = np.linspace(0, 1, 1000)
    left_out = np.array([0.4, 0.6])
    drawn[::20] = np.nan
    found = bca_interval(0.5, drawn, left_out)
    assert found.undefined == 50 and found.bounds is not None
    drawn[::5] = np.nan
    found = bca_interval(0.5, drawn, left_out)
    assert found.bounds is None and found.reason == "undefined in 200 of 1000 resamples: too few groups"
    assert found.listed is None


@pytest.mark.parametrize(
    ("estimate", "drawn", "words"),
    [
        (float("nan"), np.ones(10), "itself is undefined"),
        (1.0, np.ones(100), "same in every resample"),
        (0.0, np.linspace(0.01, 1, 100), "100% of the resamples lie above"),
        (2.0, np.linspace(0.01, 1, 100), "100% of the resamples lie below"),
    ],
)
def test_where_there_is_no_interval(estimate: float, drawn: np.ndarray, words: str) -> None:
    found = bca_interval(estimate, drawn, np.array([0.1, 0.2]))
    assert found.bounds is None and words in found.reason


def test_few_clusters_give_no_interval() -> None:
    found = bootstrap_intervals(mean_of(np.arange(9.0)), 9)["mean", None]  # type: ignore[arg-type]
    assert found.bounds is None and "9 independent groups or images are too few" in found.reason


def test_an_interval_that_is_taken_away_keeps_its_count() -> None:
    found = Interval((0.1, 0.2), "", 7).without("biased")
    assert (found.bounds, found.reason, found.undefined) == (None, "biased", 7)
    same = bca_interval(1.0, np.ones(100), np.ones(2))
    assert same.without("biased") == same  # two equal models: there is nothing to be biased


def test_cluster_numbers() -> None:
    assert cluster_numbers(["b", "a", "b"], 3).tolist() == [0, 1, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "images"), [(60, 1), (60, 3)])
def test_coverage_is_near_nominal(patients: int, images: int) -> None:
    """95 % intervals of 300 simulated studies, with patients whose images share their difficulty, hold the truth."""
    rng = np.random.default_rng(patients + images)

    def study(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        member = np.repeat(np.arange(count), images)
        labels = np.repeat(rng.random(count) < 0.4, images).astype(int)
        shift = np.repeat(rng.normal(size=count), images)
        logit = 2.4 * (labels - 0.5) + 0.9 * shift + 0.8 * rng.normal(size=len(member))
        positive = 1 / (1 + np.exp(-logit))
        return labels, np.column_stack([1 - positive, positive]), member

    names = ["a", "b"]
    labels, values, member = study(40_000)
    keys = [("auc", None), ("accuracy", None), ("sensitivity", "b"), ("mcc", None), ("brier", None), ("f1", None)]
    truth = multiclass_predictions(labels.tolist(), values, names).resampled(member)(np.ones((1, 40_000)))
    inside = dict.fromkeys(keys, 0)
    delong = plain = 0
    studies = 300
    for _ in range(studies):
        labels, values, member = study(patients)
        report = classification_report(labels.tolist(), values, names, clusters=member.tolist(), resamples=500)
        for metric, name in keys:
            bounds = (report if name is None else report["per_class"][name])["intervals"][metric]
            assert bounds is not None, report["undefined"]
            inside[metric, name] += bounds[0] <= truth[metric, name][0] <= bounds[1]
        for groups in (member, None):
            areas = delong_areas(labels == 1, values[None, :, 1], groups)
            assert areas.covariance is not None
            low, high = delong_interval(float(areas.auc[0]), float(areas.covariance[0, 0])) or (1.0, 0.0)
            held = low <= truth["auc", None][0] <= high
            delong, plain = (delong + held, plain) if groups is not None else (delong, plain + held)
    assert all(0.9 <= count / studies <= 0.985 for count in inside.values()), inside
    assert 0.9 <= delong / studies <= 0.985, delong
    if images > 1:  # images taken for independent ones promise too much
        assert plain / studies < 0.88, plain
