"""Scores of unusual images: planted ones are found, distances are SciPy's, and scores mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf

from medmamba_monai.errors import DataError
from medmamba_monai.metrics.out_of_distribution import Gaussian, UnusualImages, detection_auroc, energy


def features(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(12, 12))
    values = rng.normal(size=(n, 12)) @ mixing
    return values + shift * np.random.default_rng(98).normal(size=12)


def test_distances_are_scipys_with_scikit_learns_covariance() -> None:
    reference, others = features(40, 0), features(5, 1)
    shrunk = LedoitWolf().fit(reference)
    expected = [mahalanobis(row, reference.mean(0), shrunk.precision_) for row in others]
    np.testing.assert_allclose(Gaussian.fit(reference).distance(others), expected, rtol=1e-8)


def test_energies_are_those_of_the_papers() -> None:
    logits = np.random.default_rng(0).normal(size=(6, 4)) * 3
    np.testing.assert_allclose(energy(logits), -logsumexp(logits, axis=1))
    np.testing.assert_allclose(energy(logits, "multilabel"), -np.log1p(np.exp(logits)).sum(1))


def test_scores_are_0_at_the_median_and_1_at_the_95th_percentile_of_images_alike() -> None:
    logits = np.random.default_rng(1).normal(size=(4000, 3))
    found, remarks = UnusualImages.fit(logits[:2000], features(2000, 0))
    assert found is not None
    assert remarks == []
    scores = found.score(logits[2000:], features(2000, 1))
    assert np.median(scores) == pytest.approx(0, abs=0.1)
    assert (scores > 1).mean() == pytest.approx(0.05, abs=0.015)


def test_few_images_do_not_make_others_look_unusual() -> None:
    """Distances of the images a Gaussian was fitted on are too small; left out, they are not."""
    logits = np.random.default_rng(1).normal(size=(1060, 3))
    found, _ = UnusualImages.fit(logits[:60], features(60, 0))
    assert found is not None
    assert (found.score(logits[60:], features(1000, 1)) > 1).mean() < 0.15
    inside = Gaussian.fit(features(60, 0)).distance(features(60, 0))
    outside = Gaussian.fit(features(60, 0)).distance(features(1000, 1))
    assert (outside > np.quantile(inside, 0.95)).mean() > 0.15


def patients(count: int, images: int, seed: int) -> np.ndarray:
    """Features of patients whose images resemble each other."""
    rng, spread = np.random.default_rng(seed), np.linspace(2, 0.2, 24)
    own = np.repeat(rng.normal(size=(count, 24)), images, axis=0)
    return (0.9 * own + np.sqrt(1 - 0.9**2) * rng.normal(size=own.shape)) * spread


def test_one_in_twenty_images_of_new_patients_lies_above_1() -> None:
    logits = np.random.default_rng(1).normal(size=(1000, 3))
    apart, together = [], []
    for seed in range(8):
        validation, others = patients(40, 5, seed), patients(400, 1, 100 + seed)
        groups = [f"P{index // 5}" for index in range(200)]
        for shares, known in ((apart, None), (together, groups)):
            found, remarks = UnusualImages.fit(logits[:200], validation, groups=known)
            assert found is not None and remarks == []
            shares.append((found.score(logits[:400], others) > 1).mean())
    assert np.mean(together) == pytest.approx(0.05, abs=0.03)
    assert np.mean(apart) > 0.15  # images of the same patient make those left out look usual


def test_few_patients_are_remarked() -> None:
    logits = np.random.default_rng(1).normal(size=(60, 3))
    found, remarks = UnusualImages.fit(logits, features(60, 0), groups=np.arange(60) % 19)
    assert found is not None and found.gaussian is not None
    assert remarks == ["ood_score rests on only 19 patients or groups: more or less than 5 % may lie above 1"]
    assert UnusualImages.fit(logits, features(60, 0), groups=np.arange(60) % 20)[1] == []
    found, remarks = UnusualImages.fit(logits, features(60, 0), groups=["P1"] * 60)
    assert found is not None and found.gaussian is None
    assert "all images belong to one patient or group" in remarks[1]


def test_planted_images_are_found() -> None:
    logits = np.random.default_rng(1).normal(size=(100, 3))
    found, _ = UnusualImages.fit(logits, features(100, 0))
    assert found is not None
    assert detection_auroc(found.score(logits, features(100, 1)), found.score(logits, features(100, 2, 10.0))) > 0.95
    assert detection_auroc([0, 1], [0, 1]) == 0.5


def test_without_features_the_energy_is_taken_and_told() -> None:
    logits = np.random.default_rng(1).normal(size=(50, 3))
    found, remarks = UnusualImages.fit(logits, None)
    assert found is not None
    assert "no forward_features" in remarks[0]
    assert found.method(True) == "energy"
    both, _ = UnusualImages.fit(logits, features(50, 0))
    assert both is not None
    np.testing.assert_allclose(both.score(logits, None), found.score(logits, None))
    assert both.method(False) == "energy"


def test_what_cannot_be_fitted_has_a_reason() -> None:
    logits = np.random.default_rng(1).normal(size=(30, 3))
    assert UnusualImages.fit(logits[:19], None) == (
        None,
        ["no ood_score: it needs 20 validation images, there are 19"],
    )
    found, remarks = UnusualImages.fit(logits, np.ones((30, 5)))
    assert found is not None
    assert found.gaussian is None
    assert "equal" in remarks[0]
    assert UnusualImages.fit(np.zeros((30, 3)), None) == (
        None,
        ["no ood_score: all validation images score the same"],
    )
    with pytest.raises(DataError, match="not finite"):
        Gaussian.fit(np.full((30, 3), np.nan))


def test_it_survives_being_written() -> None:
    logits = np.random.default_rng(1).normal(size=(50, 3))
    found, _ = UnusualImages.fit(logits, features(50, 0))
    assert found is not None
    assert found.gaussian is not None
    arrays = {"mean": found.gaussian.mean, "whitening": found.gaussian.whitening}
    again = UnusualImages.from_facts(found.facts(), arrays, "multiclass")
    np.testing.assert_array_equal(again.score(logits, features(50, 1)), found.score(logits, features(50, 1)))
    with pytest.raises(DataError, match="tells nothing"):
        UnusualImages(None, "multiclass", {"mahalanobis": (0.0, 1.0)}).score(logits, None)
