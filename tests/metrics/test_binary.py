"""One class against the rest: what is undefined has its reason. The numbers are tested with both reports."""

from __future__ import annotations

import numpy as np

from medmamba_monai.metrics.binary import CLASS_METRICS, macro_means, one_class


def test_each_missing_number_has_a_reason() -> None:
    values, called = np.array([0.2, 0.8, 0.6]), np.array([False, True, True])
    for truth in (np.zeros(3, bool), np.ones(3, bool), np.array([True, False, True])):
        for flags in (called, np.zeros(3, bool), np.ones(3, bool)):
            for probabilities in (True, False):
                entry, reasons = one_class(truth, values, flags, probabilities)
                assert {name for name in CLASS_METRICS if entry[name] is None} == set(reasons)
                assert entry["support"] == truth.sum() == entry["tp"] + entry["fn"]


def test_means_want_all_classes() -> None:
    means, reasons = macro_means({"a": {"f1": 0.5, "auc": 1.0}, "b": {"f1": 0.7, "auc": None}}, ("f1", "auc"))
    assert means == {"f1": 0.6, "auc": None} and reasons == {"auc": "undefined for: b"}
