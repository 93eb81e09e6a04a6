"""Every number equals scikit-learn's; what is undefined is null with a reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from medmamba_monai.errors import DataError
from medmamba_monai.metrics import SCORE_NAMES, classification_report, confusion_matrix, score


def sample(classes: int, count: int = 200, seed: int = 0, levels: int | None = None) -> tuple[Any, Any]:
    generator = np.random.RandomState(seed)
    labels = np.concatenate([np.arange(classes), generator.randint(0, classes, count - classes)])
    scores = generator.rand(count, classes) + 0.4 * np.eye(classes)[labels]
    if levels:  # ties
        scores = np.ceil(scores * levels)
    return labels, scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("levels", [None, 3])
def test_equals_scikit_learn(classes: int, levels: int | None) -> None:
    labels, probabilities = sample(classes, levels=levels)
    names = [f"class {index}" for index in range(classes)]
    report = classification_report(labels.tolist(), probabilities, names)
    predicted = probabilities.argmax(axis=1)
    assert report["n"] == 200
    assert report["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert report["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert report["f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert report["sensitivity"] == pytest.approx(sk.recall_score(labels, predicted, average="macro"))
    assert report["quadratic_kappa"] == pytest.approx(sk.cohen_kappa_score(labels, predicted, weights="quadratic"))
    assert report["kappa"] == pytest.approx(sk.cohen_kappa_score(labels, predicted))
    assert report["mcc"] == pytest.approx(sk.matthews_corrcoef(labels, predicted))
    assert report["log_loss"] == pytest.approx(sk.log_loss(labels, probabilities))
    squares = ((probabilities - np.eye(classes)[labels]) ** 2).sum(1).mean()
    assert report["brier"] == pytest.approx(squares / (2 if classes == 2 else 1))
    assert report["average_precision"] == pytest.approx(
        sk.average_precision_score(np.eye(classes)[labels], probabilities, average="macro")
    )
    auc = (
        sk.roc_auc_score(labels, probabilities[:, 1])
        if classes == 2
        else sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    assert report["auc"] == pytest.approx(auc)
    assert report["confusion_matrix"] == sk.confusion_matrix(labels, predicted).tolist()
    specificities = []
    for index, name in enumerate(names):
        entry = report["per_class"][name]
        truth, called = labels == index, predicted == index
        assert entry["support"] == truth.sum()
        assert entry["auc"] == pytest.approx(sk.roc_auc_score(truth, probabilities[:, index]))
        assert entry["f1"] == pytest.approx(sk.f1_score(truth, called))
        assert entry["average_precision"] == pytest.approx(sk.average_precision_score(truth, probabilities[:, index]))
        assert entry["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, called))
        assert entry["brier"] == pytest.approx(sk.brier_score_loss(truth, probabilities[:, index]))
        matrix = sk.confusion_matrix(truth, called).ravel().tolist()
        assert [entry[name] for name in ("tn", "fp", "fn", "tp")] == matrix
        assert entry["sensitivity"] == pytest.approx(sk.recall_score(truth, called))
        specificities.append(sk.recall_score(~truth, ~called))
        assert entry["specificity"] == pytest.approx(specificities[-1])
    assert report["specificity"] == pytest.approx(np.mean(specificities))
    assert report["undefined"] == {}
    json.dumps(report, allow_nan=False)


def test_a_planted_error_is_seen() -> None:
    labels, probabilities = sample(3)
    right = classification_report(labels, probabilities, ["a", "b", "c"])
    wrong = classification_report(labels, probabilities[:, [1, 0, 2]], ["a", "b", "c"])
    for name in SCORE_NAMES:
        assert abs(right[name] - wrong[name]) > (0.01 if name == "ece" else 0.05), name


def test_quadratic_kappa_weighs_an_error_by_the_square_of_its_distance() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    near, far = labels.copy(), labels.copy()
    near[1], far[1] = 1, 3
    observed = np.eye(4)
    # by hand: 1 - sum(w * observed) / sum(w * expected), w the squared distance of the class numbers
    for predicted in (near, far):
        disagreement = float(((labels - predicted) ** 2).mean())
        expected = float(((labels[:, None] - predicted[None]) ** 2).mean())
        report = classification_report(labels, observed[predicted], "abcd")
        assert report["quadratic_kappa"] == pytest.approx(1 - disagreement / expected)
    scores = [score("quadratic_kappa", labels, observed[predicted]) for predicted in (labels, near, far)]
    assert scores[0] == 1.0 > scores[1] > scores[2]


def test_quadratic_kappa_keeps_the_distances_of_classes_that_do_not_occur() -> None:
    labels, predicted = [0, 3, 3, 4], [0, 3, 4, 3]
    expected = sk.cohen_kappa_score(labels, predicted, labels=[0, 1, 2, 3, 4], weights="quadratic")
    assert score("quadratic_kappa", labels, np.eye(5)[predicted]) == pytest.approx(expected)
    assert sk.cohen_kappa_score(labels, predicted, weights="quadratic") != pytest.approx(expected)


def test_an_absent_class() -> None:
    labels, probabilities = sample(3)
    kept = labels != 1
    report = classification_report(labels[kept], probabilities[kept], ["a", "b", "c"])
    absent = report["per_class"]["b"]
    names = ("auc", "average_precision", "f1", "sensitivity", "mcc")
    assert [absent[name] for name in names] == [None] * 5
    assert all(absent[name] is not None for name in ("specificity", "brier", "ece"))
    for name in ("auc", "average_precision", "f1", "sensitivity", "balanced_accuracy"):
        assert report[name] is None
        assert report["undefined"][name] == "undefined for: b"
    assert report["undefined"]["b.auc"] == "no image has this class"
    assert report["accuracy"] is not None
    json.dumps(report, allow_nan=False)


def test_one_class_only() -> None:
    report = classification_report([0, 0], [[0.9, 0.1], [0.8, 0.2]], ["a", "b"])
    assert report["accuracy"] == 1.0
    assert report["per_class"]["a"]["specificity"] is None
    assert report["undefined"]["a.specificity"] == "every image has this class"
    assert report["undefined"]["b.f1"] == "no image has this class"
    assert report["f1"] is None
    assert [report[name] for name in ("kappa", "quadratic_kappa", "mcc")] == [None] * 3
    assert "one class only" in report["undefined"]["quadratic_kappa"]


@pytest.mark.parametrize("name", SCORE_NAMES)
def test_single_scores(name: str) -> None:
    labels, probabilities = sample(3)
    assert score(name, labels, probabilities) == pytest.approx(
        classification_report(labels, probabilities, "abc")[name]
    )


def test_undefined_single_score_is_nan() -> None:
    assert np.isnan(score("auc", [0, 0], [[0.9, 0.1], [0.8, 0.2]]))
    assert np.isnan(score("log_loss", [0, 1], [[9, 0.1], [0.8, 0.2]]))
    with pytest.raises(DataError, match="no metric 'kapa'"):
        score("kapa", [0], [[1.0]])


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], np.zeros((0, 2)), "no predictions to judge"),
        ([0], [[0.5, 0.3, 0.2]], "do not fit"),
        ([0, 1], [[0.5, 0.5]], "do not fit"),
        ([2], [[0.5, 0.5]], "from 2 to 2"),
        ([-1], [[0.5, 0.5]], "from -1"),
        ([0, 1], [[0.5, 0.5], [float("nan"), 0.5]], "sample 1 are not finite"),
    ],
)
def test_input_that_does_not_fit(labels: Any, probabilities: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        classification_report(labels, probabilities, ["a", "b"])


def test_confusion_matrix_is_row_true_column_predicted() -> None:
    assert confusion_matrix([0, 0, 1], [1, 1, 1], 3).tolist() == [[0, 2, 0], [0, 1, 0], [0, 0, 0]]


def test_reliability_is_scikit_learns_curve() -> None:
    labels, probabilities = sample(3)
    report = classification_report(labels, probabilities, "abc")
    right = probabilities.argmax(1) == labels
    shares, confidence = calibration_curve(right, probabilities.max(1), n_bins=15)
    filled = [entry for entry in report["reliability"]["bins"] if entry["n"]]
    assert [entry["accuracy"] for entry in filled] == pytest.approx(shares)
    assert [entry["confidence"] for entry in filled] == pytest.approx(confidence)
    assert sum(entry["n"] for entry in filled) == 200
    assert report["ece"] == pytest.approx(
        sum(entry["n"] * abs(entry["accuracy"] - entry["confidence"]) for entry in filled) / 200
    )


def test_scores_that_are_no_probabilities_have_no_losses() -> None:
    labels, probabilities = sample(3)
    report = classification_report(labels, np.log(probabilities), "abc", resamples=50)
    for name in ("brier", "log_loss", "ece"):
        assert report[name] is None
        assert report["undefined"][name] == "the predicted values are no probabilities"
        assert name not in report["intervals"]
    assert report["reliability"] is None
    assert report["accuracy"] == classification_report(labels, probabilities, "abc")["accuracy"]
    json.dumps(report, allow_nan=False)


def test_digits_lost_in_a_table_change_no_rank_and_raise_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    labels, probabilities = sample(3, levels=3)
    report = classification_report(labels, np.round(probabilities, 4), "abc")
    exact = classification_report(labels, probabilities, "abc")
    assert report["accuracy"] == exact["accuracy"] and report["auc"] == pytest.approx(exact["auc"], abs=1e-3)
    assert report["log_loss"] == pytest.approx(exact["log_loss"], abs=1e-3)
    assert not [warning for warning in recwarn if "sum to one" in str(warning.message)]


def test_correlation_is_undefined_where_one_class_only_is_predicted() -> None:
    report = classification_report([0, 1, 1], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]], ["a", "b"])
    assert report["mcc"] is None and report["kappa"] == 0.0
    assert report["undefined"]["mcc"] == "one class only, in the predictions"
    assert report["undefined"]["b.mcc"] == "the class is never predicted"
    assert report["undefined"]["a.mcc"] == "the class is always predicted"
