"""Every number of metrics.json under a name MLflow takes, and nothing else."""

from __future__ import annotations

import json

import pytest
from mlflow.utils.validation import _validate_metric_name

from medmamba_monai.handlers.mlflow_scores import flat_scores
from medmamba_monai.metrics import classification_report

REPORT = {
    "n": 40,
    "class_names": ["benign", "malignant"],
    "auc": 0.9,
    "mcc": None,
    "undefined": {"mcc": "one class only"},
    "intervals": {"auc": [0.8, 0.95], "mcc": None},
    "auc_delong": {"benign": [0.81, 0.96]},
    "resampling": {"unit": "group", "clusters": 12, "resamples": 1000, "level": 0.9, "seed": 0},
    "per_class": {"benign": {"sensitivity": 0.7, "f1": None, "intervals": {"sensitivity": [0.6, 0.8]}}},
    "confusion_matrix": [[10, 2], [3, 25]],
    "prevalence": [0.3, 0.7],
    "reliability": {"bins": [{"low": 0, "high": 0.1, "n": 3}]},
    "calibration": {"temperature": 1.5, "applied": False},
    "conformal": {"coverage": 0.9, "coverage_interval": [0.85, 0.94], "sizes": {"1": 30}},
    "referral": {"curve": [[1.0, 0.1]], "aurc": 0.05, "at": {"0.8": 0.02}},
    "thresholded": {"per_class": {"benign": {"f1": 0.6}}},
}


def test_every_number_has_one_name() -> None:
    assert flat_scores(REPORT, "test") == {
        "test_n": 40,
        "test_auc": 0.9,
        "test_intervals/auc_low90": 0.8,
        "test_intervals/auc_high90": 0.95,
        "test_auc_delong/benign_low90": 0.81,
        "test_auc_delong/benign_high90": 0.96,
        "test_per_class/sensitivity.benign": 0.7,
        "test_per_class_intervals/sensitivity_low90.benign": 0.6,
        "test_per_class_intervals/sensitivity_high90.benign": 0.8,
        "test_calibration/temperature": 1.5,
        "test_conformal/coverage": 0.9,
        "test_conformal/coverage_low90": 0.85,
        "test_conformal/coverage_high90": 0.94,
        "test_conformal/sizes.1": 30,
        "test_referral/aurc": 0.05,
        "test_referral/at.0.8": 0.02,
        "test_thresholded/per_class.benign.f1": 0.6,
    }


def test_class_names_cannot_make_a_name_that_mlflow_refuses() -> None:
    names = ["a/b", "a\\b", "..", "/x", "HER2+ (3+)", "ünï 空", "x" * 400]
    found = flat_scores({"per_class": {name: {"auc": 0.5} for name in names}}, "validation")
    assert len(found) == len(names)
    for name in found:
        _validate_metric_name(name)


def test_a_real_report() -> None:
    report = classification_report([0, 1, 1], [[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]], ["benign", "malignant"])
    found = flat_scores(json.loads(json.dumps(report)), "test")
    assert found["test_balanced_accuracy"] == report["balanced_accuracy"] == 0.75
    assert found["test_per_class/sensitivity.malignant"] == 0.5
    assert not [name for name in found if "confusion" in name]


@pytest.mark.parametrize("report", [{}, {"class_names": ["a", "b"]}, {"auc": None}])
def test_without_numbers_there_are_no_metrics(report: dict[str, object]) -> None:
    assert flat_scores(report, "test") == {}
