"""What intervals a report has, over what, and why it lacks some."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from medmamba_monai.errors import DataError
from medmamba_monai.metrics import classification_report, multilabel_report
from medmamba_monai.metrics.delong import delong_areas, delong_interval

NAMES = ["a", "b", "c"]


def data(count: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    scores = rng.random((count, 3)) + 0.5 * np.eye(3)[labels]
    return labels, scores / scores.sum(1, keepdims=True)


def reports(**options: Any) -> list[dict[str, Any]]:
    labels, values = data()
    several = np.eye(3, dtype=int)[labels]
    return [
        classification_report(labels, values, NAMES, resamples=200, **options),
        multilabel_report(several, values, NAMES, resamples=200, **options),
    ]


def test_every_number_has_an_interval_around_it() -> None:
    for report in reports():
        json.dumps(report, allow_nan=False)
        numbers = {k for k, v in report.items() if isinstance(v, float)} - {"threshold"}
        assert set(report["intervals"]) == numbers
        places = [report, *report["per_class"].values()]
        for place in places:
            for metric, interval in place["intervals"].items():
                if metric == "ece":
                    assert interval is None
                    continue
                low, high = interval
                assert low <= place[metric] <= high, metric
        for name in NAMES:
            low, high = report["auc_delong"][name]
            assert low < report["per_class"][name]["auc"] < high
            assert report["per_class"][name]["intervals"]["auc"] == pytest.approx([low, high], abs=0.05)


def test_clusters_widen_the_intervals_and_are_named() -> None:
    labels, values = data()
    labels, values = np.repeat(labels, 5), np.repeat(values, 5, axis=0)  # each image five times
    apart = classification_report(labels, values, NAMES, resamples=500)
    clusters = [f"P{n // 5}" for n in range(450)]
    together = classification_report(labels, values, NAMES, clusters=clusters, resamples=500)
    for metric in ("accuracy", "auc", "mcc", "log_loss"):
        wide, narrow = (np.ptp(report["intervals"][metric]) for report in (together, apart))
        assert wide > 1.8 * narrow, metric
    assert np.ptp(together["auc_delong"]["a"]) > 1.8 * np.ptp(apart["auc_delong"]["a"])
    assert (apart["resampling"]["unit"], apart["resampling"]["clusters"]) == ("image", 450)
    assert (together["resampling"]["unit"], together["resampling"]["clusters"]) == ("group", 90)
    assert "independent" in apart["resampling"]["delong"] and "groups" in together["resampling"]["delong"]
    areas = delong_areas(labels == 0, values[None, :, 0], np.repeat(np.arange(90), 5))
    assert areas.covariance is not None
    expected = delong_interval(float(areas.auc[0]), float(areas.covariance[0, 0]))
    assert together["auc_delong"]["a"] == pytest.approx(expected)


def test_the_calibration_error_has_no_interval() -> None:
    """It is a sum of absolute values: resamples of a calibrated network lie above it, and never reach the true 0."""
    for report in reports():
        assert report["ece"] is not None and report["intervals"]["ece"] is None
        assert "biases the calibration error" in report["undefined"]["intervals.ece"]
        assert "biases the calibration error" in report["undefined"]["a.intervals.ece"]


@pytest.mark.parametrize("few", [2, 4])
def test_a_class_of_few_patients_has_no_interval_and_says_so(few: int) -> None:
    labels, values = data()
    labels[labels == 2] = 0
    labels[4 : 4 + few] = 2
    report = classification_report(labels, values, NAMES, clusters=np.arange(90).tolist(), resamples=1000)
    rare = report["per_class"]["c"]
    for metric in ("auc", "average_precision"):
        assert report[metric] is not None and report["intervals"][metric] is None
        assert rare[metric] is not None and rare["intervals"][metric] is None
        assert report["per_class"]["a"]["intervals"][metric] is not None
        reason = f"only {few} groups or images have the class: fewer than 5"
        assert report["undefined"][f"c.intervals.{metric}"] == reason
        assert report["undefined"][f"intervals.{metric}"] == f"{reason} ('c')"
    assert report["auc_delong"]["c"] is None and "fewer than 5" in report["undefined"]["c.auc_delong"]
    assert report["intervals"]["accuracy"] is not None
    if few == 2:
        assert 80 < report["resampling"]["undefined_resamples"]["c.auc"] < 190  # exp(-2) of them


def test_five_patients_with_a_class_have_intervals() -> None:
    labels, values = data()
    labels[labels == 2] = 0
    labels[4:9] = 2
    report = classification_report(labels, values, NAMES, resamples=300)
    assert report["intervals"]["auc"] is not None and report["auc_delong"]["c"] is not None


def test_an_absent_class_has_neither_value_nor_interval_nor_a_second_reason() -> None:
    labels, values = data()
    labels[labels == 2] = 0
    report = classification_report(labels, values, NAMES, resamples=200)
    assert report["per_class"]["c"]["auc"] is report["per_class"]["c"]["intervals"]["auc"] is None
    assert report["auc_delong"]["c"] is None and report["auc_delong"]["a"] is not None
    assert not [key for key in report["undefined"] if key.startswith("c.intervals.auc")]


def test_without_an_error_the_exact_binomial_speaks() -> None:
    labels = np.arange(40) % 2
    values = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    report = classification_report(labels, values, ["a", "b"], resamples=200)
    assert report["intervals"]["accuracy"] == pytest.approx([0.025 ** (1 / 40), 1.0])
    assert report["per_class"]["a"]["intervals"]["sensitivity"] == pytest.approx([0.025 ** (1 / 20), 1.0])
    assert "accuracy" in report["resampling"]["exact_binomial"]
    assert report["intervals"]["auc"] is None and report["auc_delong"]["a"] is None
    assert "same in every resample" in report["undefined"]["intervals.auc"]
    assert "no DeLong interval" in report["undefined"]["a.auc_delong"]
    clusters = [n // 4 for n in range(40)]
    grouped = classification_report(labels, values, ["a", "b"], clusters=clusters, resamples=200)
    assert grouped["intervals"]["accuracy"] == pytest.approx([0.025 ** (1 / 10), 1.0])


def test_few_images_have_no_intervals() -> None:
    labels, values = data(9)
    report = classification_report(labels, values, NAMES, resamples=200)
    assert report["accuracy"] is not None and set(report["intervals"].values()) == {None}
    assert "too few for an interval" in report["undefined"]["intervals.accuracy"]


def test_clusters_that_do_not_fit() -> None:
    labels, values = data()
    with pytest.raises(DataError, match="3 clusters for 90 images"):
        classification_report(labels, values, NAMES, clusters=["a", "b", "c"], resamples=10)
