"""Differences between two models against resampling one by one, and tables that do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from medmamba_monai.errors import DataError
from medmamba_monai.metrics import PredictionTable, classification_report, compare_tables, multilabel_report
from medmamba_monai.metrics.bootstrap import draw_weights
from medmamba_monai.metrics.paired import align, verdict

NAMES = ["a", "b", "c"]


def table(strength: float, seed: int, task: str = "multiclass", groups: int | None = None) -> PredictionTable:
    """A model on the same 120 images: what makes them hard is common to all, the rest is the model's own."""
    common = np.random.default_rng(0).random((120, 3))
    labels = np.arange(120) % 3
    scores = common + 0.2 * np.random.default_rng(seed).random((120, 3)) + strength * np.eye(3)[labels]
    of = None if groups is None else [f"P{n // (120 // groups)}" for n in range(120)]
    files = [f"{n}.png" for n in range(120)]
    if task == "multilabel":
        return PredictionTable(NAMES, files, of, np.eye(3, dtype=np.int64)[labels], np.clip(scores / 2, 0, 1), task)
    return PredictionTable(NAMES, files, of, labels, scores / scores.sum(1, keepdims=True), task)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_equals_the_reports_of_both(task: str) -> None:
    a, b = table(0.3, 1, task), table(0.5, 2, task)
    result = compare_tables(a, b, resamples=200)
    json.dumps(result, allow_nan=False)
    report = {"multiclass": classification_report, "multilabel": multilabel_report}[task]
    first, second = (report(each.labels, each.probabilities, NAMES) for each in (a, b))
    for name, entry in result["metrics"].items():
        assert (entry["a"], entry["b"]) == pytest.approx((first[name], second[name])), name
        assert entry["difference"] == pytest.approx(second[name] - first[name])
    for name in NAMES:
        one = result["per_class"][name]["auc"]
        assert (one["a"], one["b"]) == pytest.approx([each["per_class"][name]["auc"] for each in (first, second)])
        test = result["auc_delong"][name]
        assert test["interval"] == pytest.approx(one["interval"], abs=0.03)
    assert result["metrics"]["auc"]["verdict"] == "b"
    assert result["metrics"]["log_loss"]["difference"] < 0 and result["metrics"]["log_loss"]["verdict"] == "b"


def test_the_interval_is_of_paired_resamples() -> None:
    """Against a loop of percentiles over the same draws; unpaired ones would be far wider."""
    a, b = table(0.3, 1, groups=40), table(0.5, 2, groups=40)
    found = compare_tables(a, b, resamples=300)["metrics"]["auc"]["interval"]
    member = np.arange(120) // 3
    aucs = []
    for weight in draw_weights(40, 300):
        rows = np.repeat(np.arange(120), weight[member].astype(int))
        aucs.append([roc_auc_score(each.labels[rows], each.probabilities[rows], multi_class="ovr") for each in (a, b)])
    drawn = np.array(aucs)
    paired = np.quantile(drawn[:, 1] - drawn[:, 0], [0.025, 0.975])
    width = np.ptp(paired)
    assert found == pytest.approx(paired, abs=0.2 * width)
    apart = np.ptp(np.quantile(drawn[:, 1] - np.random.default_rng(0).permutation(drawn[:, 0]), [0.025, 0.975]))
    assert apart > 1.5 * width


def test_a_model_and_itself_or_one_as_good_is_noise() -> None:
    a = table(0.4, 1)
    result = compare_tables(a, a, resamples=200)
    assert {entry["verdict"] for entry in result["metrics"].values()} == {"noise"}
    assert result["mcnemar"] == {"only_a": 0, "only_b": 0, "p": 1.0}
    assert result["undefined"]["a.auc_delong"] == "the difference has no variance"
    assert not [name for name in result["undefined"] if not name.endswith("auc_delong")]
    result = compare_tables(a, table(0.4, 3), resamples=500)
    assert [result["metrics"][name]["verdict"] for name in ("auc", "accuracy", "mcc")] == ["noise"] * 3


def test_mcnemar_and_groups() -> None:
    a, b = table(0.2, 1), table(0.5, 2)
    result = compare_tables(a, b, resamples=100)["mcnemar"]
    right = [(each.probabilities.argmax(1) == each.labels) for each in (a, b)]
    assert result["only_b"] == (right[1] & ~right[0]).sum() > result["only_a"] == (right[0] & ~right[1]).sum()
    expected = stats.binomtest(result["only_a"], result["only_a"] + result["only_b"]).pvalue
    assert result["p"] == pytest.approx(expected)
    grouped = compare_tables(table(0.2, 1, groups=40), table(0.5, 2), resamples=100)
    assert grouped["mcnemar"]["p"] is None and "independent" in grouped["undefined"]["mcnemar"]
    assert grouped["resampling"]["unit"] == "group" and grouped["resampling"]["clusters"] == 40
    assert "Obuchowski" in grouped["resampling"]["delong"]


def test_the_order_of_rows_and_classes_does_not_matter() -> None:
    for task in ("multiclass", "multilabel"):
        a, b = table(0.3, 1, task, groups=60), table(0.5, 2, task, groups=60)
        assert b.labels is not None and b.groups is not None
        order = np.random.default_rng(0).permutation(120)
        turned = [2, 0, 1]
        labels = b.labels[order][:, turned] if task == "multilabel" else np.argsort(turned)[b.labels[order]]
        shuffled = PredictionTable(
            [NAMES[i] for i in turned],
            [b.files[i] for i in order],
            [b.groups[i] for i in order],
            labels,
            b.probabilities[order][:, turned],
            task,
        )
        back = align(a, shuffled)
        np.testing.assert_array_equal(back.probabilities, b.probabilities)
        np.testing.assert_array_equal(back.labels, b.labels)
        assert (back.files, back.groups, back.class_names) == (b.files, b.groups, b.class_names)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"files": ["new.png", *[f"{n}.png" for n in range(1, 120)]]},
            "the files differ: only A has 0.png; only B has",
        ),
        ({"files": [f"x{n}.png" for n in range(120)]}, "only A has 0.png, 1.png, 10.png and 117 more"),
        ({"class_names": ["a", "b", "d"]}, "the classes differ: only A has c; only B has d"),
        ({"labels": None}, "B: no labels"),
        ({"labels": np.array([1, *(np.arange(1, 120) % 3)])}, "the labels of 0.png differ"),
        ({"groups": ["P9", *[f"P{n // 2}" for n in range(1, 120)]]}, "the groups of 0.png differ"),
    ],
)
def test_tables_of_different_cases(change: dict[str, Any], words: str) -> None:
    a, b = table(0.3, 1, groups=60), table(0.5, 2, groups=60)
    with pytest.raises(DataError, match=words):
        compare_tables(a, replace(b, **change))


def test_absent_classes_give_no_number() -> None:
    a, b = table(0.3, 1), table(0.5, 2)
    labels = np.arange(120) % 2
    result = compare_tables(replace(a, labels=labels), replace(b, labels=labels), resamples=200)
    assert result["metrics"]["auc"] == dict.fromkeys(("a", "b", "difference", "interval", "verdict"))
    assert result["undefined"]["auc"] == "the value itself is undefined"
    assert result["auc_delong"]["c"] is None and result["undefined"]["c.auc_delong"] == "no image has this class"
    assert result["metrics"]["accuracy"]["interval"] is not None
    json.dumps(result, allow_nan=False)


def test_the_calibration_error_gets_no_verdict() -> None:
    result = compare_tables(table(0.1, 1), table(0.9, 2), resamples=200)
    for place, label in ((result["metrics"], "ece"), (result["per_class"]["a"], "a.ece")):
        assert place["ece"]["difference"] is not None
        assert place["ece"]["interval"] is place["ece"]["verdict"] is None
        assert "biases the calibration error" in result["undefined"][label]


@pytest.mark.parametrize("which", ["first", "second", "both"])
def test_rows_that_are_no_probabilities_leave_losses_null_with_the_file(which: str) -> None:
    a, b = table(0.3, 1), table(0.5, 2)
    scale = np.where(np.arange(120) == 7, 0.9, 1.0)[:, None]
    if which != "second":
        a = replace(a, probabilities=a.probabilities * scale)
    if which != "first":
        b = replace(b, probabilities=b.probabilities * scale)
    result = compare_tables(a, b, resamples=100)
    sides = {"first": "A", "second": "B", "both": "AB"}[which]
    reason = "; ".join(f"{side}: the probabilities of 7.png sum to 0.9" for side in sides)
    for name in ("brier", "log_loss", "ece"):
        entry = result["metrics"][name]
        assert [entry["a"] is None, entry["b"] is None] == ["A" in sides, "B" in sides]
        assert entry["difference"] is entry["interval"] is entry["verdict"] is None
        assert result["undefined"][name] == reason
    assert result["per_class"]["a"]["brier"]["difference"] is None and result["undefined"]["a.brier"] == reason
    assert result["metrics"]["auc"]["interval"] is not None
    json.dumps(result, allow_nan=False)


def changed(count: int) -> tuple[PredictionTable, PredictionTable]:
    """A model without an error, and one that has ``count`` images wrong."""
    a = table(3.0, 1)
    wrong = a.probabilities.copy()
    wrong[:count] = np.roll(wrong[:count], 1, axis=1)
    return a, replace(a, probabilities=wrong)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize(("count", "verdict"), [(4, None), (5, None), (6, "a")])
def test_a_handful_of_images_decides_nothing(count: int, verdict: str | None, task: str) -> None:
    a, b = changed(count)
    if task == "multilabel":
        truth = np.eye(3, dtype=np.int64)[np.arange(120) % 3]
        a, b = (replace(each, labels=truth, task=task) for each in (a, b))
    result = compare_tables(a, b, resamples=300)
    name = "accuracy" if task == "multiclass" else "exact_match"
    entry = result["metrics"][name]
    assert entry["verdict"] == verdict and (entry["interval"] is None) == (verdict is None)
    if verdict is None:
        assert result["undefined"][name] == f"the models differ on {count} groups or images: fewer than 6"
        counted = {"f1", "mcc", "sensitivity", "specificity"}
        assert {result["metrics"][each]["verdict"] for each in counted} == {None}
    assert result["metrics"]["log_loss"]["interval"] is not None  # of probabilities, not of counts


def test_few_patients_that_differ_count_once_however_many_images() -> None:
    a, b = changed(12)
    groups = [f"P{n // 4}" for n in range(120)]
    result = compare_tables(replace(a, groups=groups), b, resamples=300)
    assert result["metrics"]["accuracy"]["verdict"] is None
    assert "differ on 3 groups" in result["undefined"]["accuracy"]


def test_a_class_of_four_images_has_no_test() -> None:
    a, b = table(0.3, 1), table(0.9, 2)
    labels = np.arange(120) % 2
    labels[:4] = 2
    result = compare_tables(replace(a, labels=labels), replace(b, labels=labels), resamples=200)
    assert result["auc_delong"]["c"] is None and "only 4 groups" in result["undefined"]["c.auc_delong"]
    assert result["metrics"]["auc"]["verdict"] is None and "('c')" in result["undefined"]["auc"]


def test_verdicts() -> None:
    assert verdict("mcc", [-0.2, -0.1]) == "a" and verdict("hamming_loss", [-0.2, -0.1]) == "b"
    assert verdict("mcc", None) is None and verdict("mcc", [0.0, 0.1]) == "noise"
