"""Every number equals scikit-learn's; what is undefined is null with a reason, never a number."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    hamming_loss,
    log_loss,
    matthews_corrcoef,
    multilabel_confusion_matrix,
    recall_score,
    roc_auc_score,
)

from medmamba_monai.errors import ConfigError, DataError
from medmamba_monai.metrics import MULTILABEL_SCORE_NAMES, multilabel_report

NAMES = ["effusion", "mass", "nodule", "hernia"]


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((60, 4)) < [0.5, 0.3, 0.2, 0.1]).astype(int)
    labels[0] = 1
    labels[1] = 0
    return labels, np.round(np.clip(0.4 * labels + rng.random((60, 4)) * 0.6, 0, 1), 2)  # with ties


@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(seed: int, threshold: float) -> None:
    labels, values = data(seed)
    called = (values >= threshold).astype(int)
    report = multilabel_report(labels.tolist(), values, NAMES, threshold)
    expected = {
        "auc": roc_auc_score(labels, values, average="macro"),
        "average_precision": average_precision_score(labels, values, average="macro"),
        "f1": f1_score(labels, called, average="macro"),
        "sensitivity": recall_score(labels, called, average="macro"),
        "specificity": recall_score(1 - labels, 1 - called, average="macro"),
        "exact_match": accuracy_score(labels, called),
        "hamming_loss": hamming_loss(labels, called),
        "mcc": np.mean([matthews_corrcoef(*pair) for pair in zip(labels.T, called.T, strict=True)]),
        "brier": np.mean([brier_score_loss(*pair) for pair in zip(labels.T, values.T, strict=True)]),
        "log_loss": log_loss(labels.ravel(), values.ravel()),
        "ece": report["ece"],
    }
    shares, confidence = calibration_curve(labels.ravel(), values.ravel(), n_bins=15)
    filled = [entry for entry in report["reliability"]["bins"] if entry["n"]]
    np.testing.assert_allclose([each["accuracy"] for each in filled], shares)
    np.testing.assert_allclose([each["confidence"] for each in filled], confidence)
    gaps = [each["n"] * abs(each["accuracy"] - each["confidence"]) for each in filled]
    assert report["ece"] == pytest.approx(sum(gaps) / labels.size)
    assert {name: report[name] for name in MULTILABEL_SCORE_NAMES} == pytest.approx(expected)
    for index, (name, matrix) in enumerate(zip(NAMES, multilabel_confusion_matrix(labels, called), strict=True)):
        entry = report["per_class"][name]
        assert [[entry["tn"], entry["fp"]], [entry["fn"], entry["tp"]]] == matrix.tolist()
        assert entry["auc"] == pytest.approx(roc_auc_score(labels[:, index], values[:, index]))
        assert entry["f1"] == pytest.approx(f1_score(labels[:, index], called[:, index]))
        assert entry["support"] == labels[:, index].sum()
    assert report["undefined"] == {}
    assert (report["n"], report["task"], report["threshold"]) == (60, "multilabel", threshold)


def test_a_class_that_no_image_has_gives_no_number() -> None:
    labels, values = data()
    labels[:, 3] = 0
    report = multilabel_report(labels, values, NAMES)
    hernia = report["per_class"]["hernia"]
    assert [hernia[name] for name in ("auc", "average_precision", "f1", "sensitivity")] == [None] * 4
    assert hernia["specificity"] == pytest.approx((values[:, 3] < 0.5).mean())
    assert [report[name] for name in ("auc", "average_precision", "f1", "sensitivity")] == [None] * 4
    assert report["undefined"]["hernia.f1"] == "no image has this class"
    assert report["undefined"]["auc"] == "undefined for: hernia"
    assert report["specificity"] is not None and report["exact_match"] is not None


def test_a_class_that_every_image_has() -> None:
    labels, values = data()
    labels[:, 0] = 1
    report = multilabel_report(labels, values, NAMES)
    assert report["per_class"]["effusion"]["auc"] is None
    assert report["undefined"]["effusion.specificity"] == "every image has this class"
    assert report["specificity"] is None
    assert report["average_precision"] == pytest.approx(average_precision_score(labels, values, average="macro"))


@pytest.mark.parametrize(
    ("labels", "values", "words"),
    [
        (np.zeros((0, 4)), np.zeros((0, 4)), "no predictions"),
        (np.zeros((3, 3)), np.zeros((3, 3)), "do not fit"),
        (np.zeros((3, 4)), np.zeros((2, 4)), "do not fit"),
        (np.zeros(3), np.zeros((3, 4)), "do not fit"),
        (np.full((3, 4), 2), np.zeros((3, 4)), "not all 0 or 1"),
        (np.zeros((3, 4)), np.array([[0] * 4, [0, 0, 1.5, 0], [0] * 4]), "sample 1 are no probabilities"),
        (np.zeros((3, 4)), np.array([[0] * 4, [0] * 4, [np.nan, 0, 0, 0]]), "sample 2 are no probabilities"),
    ],
)
def test_what_cannot_be_judged(labels: np.ndarray, values: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        multilabel_report(labels, values, NAMES)


@pytest.mark.parametrize("threshold", [0, 1, -0.5, float("nan")])
def test_thresholds_lie_between_0_and_1(threshold: float) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        multilabel_report(*data(), NAMES, threshold)
