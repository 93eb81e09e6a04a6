"""Tables hold metrics.json's numbers and nothing else."""

from __future__ import annotations

from medmamba_monai.report.scores import (
    class_table,
    headline,
    metrics_table,
    resampling_sentence,
    safety_points,
    threshold_table,
)

METRICS = {
    "n": 50,
    "class_names": ["a", "b"],
    "accuracy": 0.81234,
    "auc": None,
    "balanced_accuracy": 0.5,
    "my_own": 0.25,
    "threshold": 0.5,
    "undefined": {"auc": "undefined for: b"},
    "intervals": {"accuracy": [0.7, 0.9], "balanced_accuracy": None},
    "per_class": {
        "a": {"support": 50, "auc": 0.9, "f1": 0.5, "intervals": {"auc": [0.85, 0.95]}},
        "b": {"support": 0, "auc": None, "f1": None},
    },
}


def test_metrics_table() -> None:
    rows = {row[0]: row[1:] for row in metrics_table(METRICS).rows}
    assert rows["accuracy"] == ["0.812", "0.700 to 0.900"]
    assert rows["balanced accuracy"] == ["0.500", "-"]
    assert rows["AUC (mean over classes)"] == ["undefined", "-"]
    assert rows["my_own"] == ["0.250", "-"]
    assert "threshold" not in rows


def test_class_table() -> None:
    table = class_table(METRICS)
    assert table.head == ["class", "images", "AUC", "F1"]
    assert table.rows == [["a", "50", "0.900 [0.85, 0.95]", "0.500"], ["b", "0", "undefined", "undefined"]]


def test_headline() -> None:
    cards = {card.name: (card.value, card.note) for card in headline(METRICS, "multiclass")}
    assert cards["AUC"] == ("undefined", "undefined for: b")
    assert cards["accuracy"] == ("0.812", "95 % interval 0.700 to 0.900")
    assert cards["balanced accuracy"] == ("0.500", "no interval")
    assert cards["images"] == ("50", "2 classes")


def test_resampling_sentence() -> None:
    drawn = {"unit": "group", "clusters": 31, "resamples": 1000, "level": 0.95, "seed": 4}
    assert "over 31 patients or other groups, 1000 resamples, seed 4" in resampling_sentence({"resampling": drawn})
    assert "no intervals" in resampling_sentence({})


def test_safety_points() -> None:
    assert safety_points({}) == []
    told = " ".join(
        safety_points(
            {
                "calibration": {
                    "temperature": 1.5,
                    "ece_before": 0.2,
                    "ece_after": 0.1,
                    "log_loss_before": 1,
                    "applied": False,
                },
                "conformal": {"alpha": 0.1, "coverage": 0.912, "coverage_interval": [0.8, 0.97], "mean_set_size": 1.4},
                "referral": {"at": {"0.8": 0.05}},
                "ood": {"auroc": 0.99, "method": "energy"},
            }
        )
    )
    parts = ["Temperature 1.500", "not applied", "0.200 before, 0.100 after", "90% of images", "0.912 [0.800, 0.970]"]
    parts += ["0.050 with 80% kept", "Out of distribution (energy): AUROC 0.990"]
    assert [part for part in parts if part not in told] == []


def test_threshold_table() -> None:
    entry = {"threshold": 0.25, "sensitivity": 0.9, "specificity": None, "precision": 0.5, "f1": 0.6}
    table = threshold_table({"thresholded": {"criterion": "youden", "per_class": {"a": entry}}})
    assert table is not None
    assert "youden" in table.caption
    assert table.rows == [["a", "0.250", "0.900", "undefined", "0.500", "0.600"]]
    assert threshold_table({}) is None
