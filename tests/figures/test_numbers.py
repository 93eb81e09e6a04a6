"""Values and intervals as texts."""

from __future__ import annotations

from medmamba_monai.figures.numbers import class_interval, reason_for, written


def test_bootstrap_interval_goes_before_delong() -> None:
    metrics = {
        "per_class": {"a": {"intervals": {"auc": [0.6, 0.9]}}, "b": {}},
        "auc_delong": {"a": [0, 1], "b": [0.5, 0.7]},
    }
    assert class_interval(metrics, "a", "auc") == (0.6, 0.9)
    assert class_interval(metrics, "b", "auc") == (0.5, 0.7)
    assert class_interval(metrics, "b", "f1") is None
    assert class_interval({"per_class": {"a": {"intervals": {"auc": None}}}}, "a", "auc") is None
    assert class_interval({}, "a", "auc") is None


def test_reason_and_text() -> None:
    assert reason_for({"undefined": {"a.auc": "no samples"}}, "a.auc") == "no samples"
    assert reason_for({}, "a.auc") == "not computed"
    assert written(1.0, (0.98765, 1.0)) == "1.000 [0.988, 1.000]"
