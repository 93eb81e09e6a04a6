"""Temperature scaling against a planted temperature, scikit-learn's log loss and a search on a grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import log_loss

from medmamba_monai.errors import ConfigError, DataError
from medmamba_monai.metrics.temperature import check_labels, fit_temperature, negative_log_likelihood, temper


def planted(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(z), and the probabilities of a network whose logits are ``temperature`` * z."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, 4))
    labels = np.array([rng.choice(4, p=row) for row in softmax(logits, axis=1)])
    return labels, softmax(temperature * logits, axis=1)


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_found(truth: float) -> None:
    labels, probabilities = planted(20_000, truth)
    found = fit_temperature(labels, probabilities)
    assert found == pytest.approx(truth, rel=0.04)


def test_it_minimises_the_log_loss_of_scikit_learn() -> None:
    labels, probabilities = planted(300, 2.5)
    found = fit_temperature(labels, probabilities)
    assert found is not None
    losses = {t: log_loss(labels, temper(probabilities, t)) for t in found * np.linspace(0.5, 2, 301)}
    assert min(losses, key=losses.__getitem__) == pytest.approx(found, rel=0.01)
    assert negative_log_likelihood(labels, probabilities) == pytest.approx(log_loss(labels, probabilities))


def test_several_labels_have_one_temperature_on_their_own_logits() -> None:
    rng = np.random.default_rng(1)
    logits = 1.2 * rng.normal(size=(8000, 3))
    labels = (rng.random(logits.shape) < expit(logits)).astype(int)
    found = fit_temperature(labels, expit(3 * logits), "multilabel")
    assert found == pytest.approx(3.0, rel=0.05)
    np.testing.assert_allclose(temper(expit(3 * logits), 3.0, "multilabel"), expit(logits), atol=1e-4)
    expected = np.mean([log_loss(labels[:, i], expit(logits[:, i])) for i in range(3)])
    assert negative_log_likelihood(labels, expit(logits), "multilabel") == pytest.approx(expected)


def test_tempering_divides_logits_keeps_the_ranking_and_can_be_undone() -> None:
    _, probabilities = planted(50, 1.0)
    logits = np.log(probabilities)
    np.testing.assert_allclose(temper(probabilities, 2.0), softmax(logits / 2.0, axis=1))
    assert (temper(probabilities, 5.0).argsort(1) == probabilities.argsort(1)).all()
    np.testing.assert_allclose(temper(temper(probabilities, 5.0), 0.2), probabilities, rtol=1e-9)
    np.testing.assert_allclose(temper([[1.0, 0.0]], 2.0), [[1.0, 0.0]], atol=1e-15)


def test_without_an_error_there_is_no_temperature() -> None:
    assert fit_temperature([0, 1] * 20, [[0.9, 0.1], [0.1, 0.9]] * 20) is None
    assert fit_temperature([1, 0] * 20, [[0.9, 0.1], [0.1, 0.9]] * 20) is None


def test_mistakes_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperature=0"):
        temper([[0.5, 0.5]], 0)
    with pytest.raises(ConfigError, match="task='binary'"):
        temper([[0.5, 0.5]], 1, "binary")
    for labels in ([0, 2], [0], [-1, 0], [[0], [1]], []):
        with pytest.raises(DataError):
            check_labels(labels, np.full((2, 2), 0.5), "multiclass")
    with pytest.raises(DataError):
        check_labels([[0, 2], [0, 0]], np.full((2, 2), 0.5), "multilabel")


@pytest.mark.parametrize(("right", "wrong", "share"), [(3, 16, 0.02), (3, 10, 0.01), (2, 10, 0.01)])
def test_confident_errors_do_not_pull_the_temperature_down(right: float, wrong: float, share: float) -> None:
    """A loss of clipped likelihoods has a second minimum at 0.2, where such errors cost nothing more."""
    generator = np.random.default_rng(0)
    truth = np.ones((5000, 2), dtype=int)
    logits = generator.normal(right, 1, truth.shape)
    logits[generator.random(truth.shape) < share] = -wrong
    found = fit_temperature(truth, expit(logits), "multilabel")
    grid = np.exp(np.linspace(-3, 3, 1201))
    losses = [np.logaddexp(0, -logits / temperature).mean() for temperature in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.01)
