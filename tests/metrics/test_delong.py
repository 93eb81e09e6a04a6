"""DeLong's and Obuchowski's variances against loops over all pairs of images, and against what repeated draws show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from medmamba_monai.metrics.delong import delong_areas, delong_interval, delong_test


def naive(truth: np.ndarray, values: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and covariance in O(mn): the kernel pair by pair, components added up by group in dictionaries."""
    positives, negatives = np.flatnonzero(truth), np.flatnonzero(~truth)
    m, n, models = len(positives), len(negatives), len(values)
    areas, parts = [], []
    for scores in values:
        wins = np.array(
            [[(scores[i] > scores[j]) + (scores[i] == scores[j]) / 2 for j in negatives] for i in positives]
        )
        area = wins.mean()
        over: dict[int, float] = {}
        under: dict[int, float] = {}
        for row, i in enumerate(positives):
            over[member[i]] = over.get(member[i], 0.0) + wins[row].mean() - area
        for column, j in enumerate(negatives):
            under[member[j]] = under.get(member[j], 0.0) + wins[:, column].mean() - area
        areas.append(area)
        parts.append((over, under))
    groups = len(set(member.tolist()))
    with_positive, with_negative = len(set(member[truth].tolist())), len(set(member[~truth].tolist()))
    covariance = np.empty((models, models))
    for r, (over_r, under_r) in enumerate(parts):
        for s, (over_s, under_s) in enumerate(parts):
            s10 = sum(over_r[g] * over_s[g] for g in over_r) * with_positive / ((with_positive - 1) * m)
            s01 = sum(under_r[g] * under_s[g] for g in under_r) * with_negative / ((with_negative - 1) * n)
            s11 = sum(over_r[g] * under_s[g] for g in over_r if g in under_s) * groups / (groups - 1)
            s11_other = sum(over_s[g] * under_r[g] for g in over_s if g in under_r) * groups / (groups - 1)
            covariance[r, s] = s10 / m + s01 / n + (s11 + s11_other) / (m * n)
    return np.array(areas), covariance


def data(seed: int = 0, count: int = 60, decimals: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    values = np.round(rng.normal(size=(3, count)) + np.array([[1.0], [0.7], [0.0]]) * truth, decimals)
    return truth, values, rng.integers(0, count // 3, count)


@pytest.mark.parametrize("decimals", [8, 0])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("grouped", [False, True])
def test_equals_loops_over_all_pairs(seed: int, decimals: int, grouped: bool) -> None:
    truth, values, member = data(seed, decimals=decimals)
    member = member if grouped else np.arange(60)
    areas = delong_areas(truth, values, member if grouped else None)
    expected = naive(truth, values, member)
    np.testing.assert_allclose(areas.auc, expected[0])
    np.testing.assert_allclose(areas.covariance, expected[1], atol=1e-15)
    np.testing.assert_allclose(areas.auc, [roc_auc_score(truth, row) for row in values])
    found = delong_test(areas)
    assert found is not None
    (a, c), (_, b) = expected[1][:2, :2]
    deviation = np.sqrt(a + b - 2 * c)
    assert found.difference == pytest.approx(expected[0][1] - expected[0][0])
    assert found.p == pytest.approx(2 * norm.sf(abs(found.difference) / deviation))
    assert (found.low, found.high) == pytest.approx(norm.interval(0.95, found.difference, deviation))


def test_copies_of_an_image_are_no_evidence() -> None:
    """Ten copies of each image leave the clustered variance nearly as it was, and shrink the plain one tenfold."""
    truth, values, _ = data()
    once = delong_areas(truth, values).covariance
    copies = np.repeat(truth, 10), np.repeat(values, 10, axis=1)
    clustered = delong_areas(*copies, np.repeat(np.arange(60), 10)).covariance
    plain = delong_areas(*copies).covariance
    assert once is not None and clustered is not None and plain is not None
    np.testing.assert_allclose(clustered, once, rtol=1e-9)
    assert once[0, 0] / plain[0, 0] == pytest.approx(10, rel=0.1)


def test_variance_of_repeated_draws_of_patients() -> None:
    """Patients with three images that share a shift, some with both classes."""
    rng = np.random.default_rng(0)
    areas, variances = [], []
    member = np.repeat(np.arange(40), 3)
    for _ in range(300):
        truth = rng.random(120) < np.repeat(rng.choice([0.1, 0.5, 0.9], 40), 3)
        scores = truth + np.repeat(rng.normal(size=40), 3) + 0.5 * rng.normal(size=120)
        found = delong_areas(truth, scores[None], member)
        assert found.covariance is not None
        areas.append(found.auc[0])
        variances.append(found.covariance[0, 0])
    assert np.mean(variances) == pytest.approx(np.var(areas), rel=0.2)


def test_where_there_is_no_interval() -> None:
    ten = np.arange(10) < 5
    perfect = delong_areas(ten, [np.linspace(1, 0, 10)])
    assert perfect.auc[0] == 1 and perfect.covariance is not None
    assert delong_interval(1.0, float(perfect.covariance[0, 0])) is None
    assert delong_interval(0.5, 0.0) is None
    truth, values, _ = data()
    assert delong_test(delong_areas(truth, values[[0, 0]])) is None  # a model and itself


@pytest.mark.parametrize(("positives", "word"), [(4, "have"), (56, "lack")])
def test_few_images_of_a_class_give_no_interval(positives: int, word: str) -> None:
    """In simulated studies with two to four of them intervals hold the AUC too rarely."""
    _, values, _ = data()
    few = delong_areas(np.arange(60) < positives, values[:2])
    assert few.covariance is None and f"only 4 groups or images {word} the class" in few.reason
    assert np.isfinite(few.auc).all() and delong_test(few) is None
    assert delong_areas(np.arange(60) < 5, values).covariance is not None


def test_few_groups_give_no_interval_however_many_images() -> None:
    truth, values, _ = data()
    nine = delong_areas(truth, values, np.arange(60) % 9)
    assert nine.covariance is None and nine.reason.startswith("9 independent groups or images are too few")
    four = delong_areas(np.arange(60) < 20, values, np.minimum(np.arange(60) // 5, 20))
    assert four.covariance is None and "only 4 groups or images have" in four.reason
    assert delong_areas(truth, values, np.arange(60) % 10).covariance is not None


def test_intervals_stay_within_0_and_1() -> None:
    low, high = delong_interval(0.98, 0.001) or (0.0, 0.0)
    assert 0 < low < 0.98 < high < 1
    wide = delong_interval(0.98, 0.001, 0.99)
    assert wide is not None and wide[0] < low and high < wide[1]
