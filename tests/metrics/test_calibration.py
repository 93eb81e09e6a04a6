"""The facts of calibration.json: fitted, written, read back, and what they give on other images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, softmax

from medmamba_monai.errors import CheckpointError
from medmamba_monai.metrics import report_of
from medmamba_monai.metrics.calibration import Calibration, calibration_error
from medmamba_monai.metrics.calibration_error import BINS

NAMES = ["a", "b", "c"]


def world(n: int, seed: int, sure: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, 3))
    labels = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])
    return labels, softmax(sure * logits, axis=1)


def test_a_fit_improves_what_it_was_not_fitted_on() -> None:
    calibration = Calibration.fit(*world(600, 0), NAMES)
    labels, probabilities = world(600, 1)
    report = calibration.report(labels, probabilities)
    facts = report["calibration"]
    assert facts["temperature"] == pytest.approx(3.0, rel=0.15)
    assert facts["ece_after"] < facts["ece_before"] / 2
    assert facts["log_loss_after"] < facts["log_loss_before"]
    assert report["conformal"]["coverage"] == pytest.approx(0.9, abs=0.04)
    assert report["undefined"] == {}
    assert report["referral"]["at"]["0.5"] < report["referral"]["at"]["1"]


def test_probabilities_with_and_without_the_temperature_give_one_report() -> None:
    calibration = Calibration.fit(*world(200, 0), NAMES)
    labels, probabilities = world(300, 1)
    raw = calibration.report(labels, probabilities)
    applied = calibration.report(labels, calibration.apply(probabilities), applied=True)
    for key in ("ece_before", "ece_after", "log_loss_before", "log_loss_after"):
        assert applied["calibration"][key] == pytest.approx(raw["calibration"][key], abs=1e-9)
    assert applied["conformal"] == raw["conformal"]
    assert applied["calibration"]["applied"] is True
    assert applied["thresholded"]["thresholds"] == calibration.calibrated_thresholds
    assert raw["thresholded"]["thresholds"] == calibration.thresholds


def test_it_survives_json_and_refuses_what_it_is_not() -> None:
    calibration = Calibration.fit(*world(60, 0), NAMES, ood={"method": "energy"})
    text = json.dumps(calibration.to_json(), allow_nan=False)
    assert Calibration.from_json(json.loads(text), "x") == calibration
    for broken in ({}, [], {**calibration.to_json(), "conformal": None}):
        with pytest.raises(CheckpointError, match="calibration.json.*no calibration"):
            Calibration.from_json(broken, "calibration.json")
    with pytest.raises(CheckpointError, match="format 9"):
        Calibration.from_json({**calibration.to_json(), "format": 9}, "calibration.json")


def test_too_few_images_give_reasons_and_no_numbers() -> None:
    calibration = Calibration.fit(*world(8, 0), NAMES)
    assert calibration.temperature is None
    assert calibration.set_threshold is None
    assert set(calibration.thresholds.values()) == {None}
    labels, probabilities = world(30, 1)
    report = calibration.report(labels, probabilities)
    assert "needs 20 validation images, there are 8" in report["undefined"]["calibration.temperature"]
    assert "needs 9 images" in report["undefined"]["conformal"]
    assert "5 images" in report["undefined"]["thresholded.a"]
    assert report["conformal"] is None
    assert report["calibration"]["ece_after"] is None
    assert report["calibration"]["ece_before"] is not None
    assert calibration.sets(probabilities) is None
    np.testing.assert_array_equal(calibration.apply(probabilities), probabilities)


def test_perfect_validation_gives_no_temperature_but_sets() -> None:
    labels = np.arange(30) % 3
    probabilities = np.eye(3)[labels] * 0.7 + 0.1
    calibration = Calibration.fit(labels, probabilities, NAMES)
    assert calibration.temperature is None
    assert "classified right" in calibration.remarks[0]
    assert f"fitted on only {calibration.n} images: expect the numbers to vary" in calibration.remarks
    assert calibration.sets(probabilities[:2]) == [["a"], ["b"]]


def test_sets_name_the_most_probable_first() -> None:
    calibration = Calibration("multiclass", NAMES, 50, None, {}, {}, "youden", 0.1, 0.75)
    assert calibration.sets([[0.3, 0.6, 0.1], [0.2, 0.24, 0.24]]) == [["b", "a"], []]


def test_several_labels_have_no_sets_but_the_rest() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(300, 3))
    labels = (rng.random(logits.shape) < expit(logits)).astype(int)
    calibration = Calibration.fit(labels[:150], expit(3 * logits[:150]), NAMES, "multilabel")
    assert calibration.temperature == pytest.approx(3, rel=0.25)
    report = calibration.report(labels[150:], expit(3 * logits[150:]))
    assert report["conformal"] is None
    assert "one true class" in report["undefined"]["conformal"]
    assert report["calibration"]["ece_after"] < report["calibration"]["ece_before"]
    assert 0 < report["thresholded"]["exact_match"] < 1


def test_the_calibration_error_is_the_sum_over_bins() -> None:
    labels, probabilities = world(500, 4)
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for index in range(BINS):
        inside = (sure > index / BINS) & (sure <= (index + 1) / BINS)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert calibration_error(labels, probabilities) == pytest.approx(total)


def test_metrics_json_states_one_calibration_error() -> None:
    """That of the report of all metrics and the one before the temperature are the same number."""
    labels, probabilities = world(200, 4)
    names = [str(number) for number in range(probabilities.shape[1])]
    found = Calibration.fit(labels, probabilities, names).report(labels, probabilities)
    expected = report_of("multiclass")(labels, probabilities, names, resamples=0)["ece"]
    assert found["calibration"]["ece_before"] == pytest.approx(expected, abs=1e-12)
