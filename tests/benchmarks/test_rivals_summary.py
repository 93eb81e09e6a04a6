"""The table of the rivals benchmark, on predictions whose scores are known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from medmamba_monai.benchmarks.rivals_summary import Contestant, markdown, rows
from medmamba_monai.errors import DataError
from medmamba_monai.metrics import PredictionTable

NAMES = ["benign", "malignant"]


def table(error: float, seed: int, count: int = 120) -> PredictionTable:
    """Predictions of which about a share of ``error`` is wrong; two images a patient."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    wrong = random.random(count) < error
    second = np.where(labels ^ wrong, random.uniform(0.5, 1, count), random.uniform(0, 0.5, count))
    probabilities = np.stack([1 - second, second], axis=1)
    files = [f"{index:03d}.png" for index in range(count)]
    return PredictionTable(NAMES, files, [f"P{index // 2}" for index in range(count)], labels, probabilities)


def contestant(name: str, error: float, seeds: int = 2) -> Contestant:
    # crc-free, reproducible starts: every name and seed its own errors
    start = sum(map(ord, name))
    tables = [table(error, start + seed) for seed in range(seeds)]
    return Contestant("pack", name, tables, 1_500_000, "learning_rate 0.001", [10.0] * seeds)


def test_scores_are_those_of_scikit_learn() -> None:
    entry = contestant("a", 0.3)
    for metric, oracle in (
        ("balanced_accuracy", lambda t: balanced_accuracy_score(t.labels, t.probabilities.argmax(1))),
        ("auc", lambda t: roc_auc_score(t.labels, t.probabilities[:, 1])),
    ):
        np.testing.assert_allclose(entry.scores(metric), [oracle(t) for t in entry.tables], atol=1e-12)


def test_a_large_difference_is_no_noise_and_a_small_one_is() -> None:
    entries = [contestant("ours", 0.1), contestant("worse", 0.4), contestant("alike", 0.1), contestant("better", 0.0)]
    found = {row["network"]: row for row in rows(entries, "ours")}
    worse, alike, better = (
        [float(end) for end in str(found[name]["balanced_accuracy_ours_minus_95"]).split()]
        for name in ("worse", "alike", "better")
    )
    assert worse[0] > 0
    assert alike[0] < 0 < alike[1]
    assert better[1] < 0
    expected = np.mean(entries[0].scores("auc")) - np.mean(entries[1].scores("auc"))
    assert float(str(found["worse"]["auc_ours_minus"])) == pytest.approx(expected, abs=1e-4)
    page = markdown(rows(entries, "ours"), "Budget.", "command", "machine")
    assert "ahead in 1, behind in 1, and 1 differences are within noise" in page
    assert page.count("**+") == 2
    assert "1.5 M" in page


def test_other_images_are_refused() -> None:
    short = Contestant("pack", "short", [table(0.1, 0, 100)], 0, "", [])
    with pytest.raises(DataError, match="short was not tested on the images of ours"):
        rows([contestant("ours", 0.1), short], "ours")
