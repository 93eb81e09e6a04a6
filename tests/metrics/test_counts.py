"""Many tables at once give what scikit-learn gives one by one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from medmamba_monai.metrics.counts import binary_metrics, table_metrics


def test_tables_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 4, (10, 2, 50))
    pairs[:, 1] = np.where(rng.random((10, 50)) < 0.5, pairs[:, 0], pairs[:, 1])
    tables = np.array([sk.confusion_matrix(*pair, labels=range(4)) for pair in pairs], dtype=float)
    found = table_metrics(tables)
    for index, (truth, called) in enumerate(pairs):
        assert found["accuracy"][index] == pytest.approx(sk.accuracy_score(truth, called))
        assert found["kappa"][index] == pytest.approx(sk.cohen_kappa_score(truth, called))
        expected = sk.cohen_kappa_score(truth, called, weights="quadratic")
        assert found["quadratic_kappa"][index] == pytest.approx(expected)
        assert found["mcc"][index] == pytest.approx(sk.matthews_corrcoef(truth, called))
        flags = truth == 1, called == 1
        one = binary_metrics(
            *(np.array([c]) for c in (sk.confusion_matrix(*flags).ravel()[[3, 1, 2, 0]]).astype(float))
        )
        assert one["mcc"][0] == pytest.approx(sk.matthews_corrcoef(*flags))
        assert one["f1"][0] == pytest.approx(sk.f1_score(*flags))
        assert one["sensitivity"][0] == pytest.approx(sk.recall_score(*flags))
        assert one["specificity"][0] == pytest.approx(sk.recall_score(*flags, pos_label=False))


def test_what_would_divide_by_zero_is_nan() -> None:
    one_class = table_metrics(np.array([[5.0, 0], [0, 0]]))
    assert one_class["accuracy"] == 1
    assert all(np.isnan(one_class[name]) for name in ("kappa", "quadratic_kappa", "mcc"))
    always = table_metrics(np.array([[5.0, 0], [3, 0]]))
    assert np.isnan(always["mcc"]) and always["kappa"] == 0
    absent = binary_metrics(*np.array([0.0, 2, 0, 3]))
    assert all(np.isnan(absent[name]) for name in ("sensitivity", "f1", "mcc")) and absent["specificity"] == 0.6
