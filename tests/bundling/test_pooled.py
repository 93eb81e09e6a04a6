"""Pooled files: what an evaluation would write for all images at once, with folds, seeds and their spread."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from medmamba_monai.bundling.pooled import pool
from medmamba_monai.metrics import PredictionTable

NAMES = ["benign", "malignant"]


def predictions(fold: int, seed: int, images: int = 12) -> PredictionTable:
    rng = np.random.default_rng([fold, seed])
    files = [f"{fold}_{index}.png" for index in range(images)]
    labels = np.arange(images) % 2
    probabilities = rng.dirichlet([1, 1], images)
    return PredictionTable(NAMES, files, [f"P{fold}_{i // 2}" for i in range(images)], labels, probabilities)


def test_folds_and_seeds(tmp_path: Path) -> None:
    tables = {(fold, seed): predictions(fold, seed) for fold in (1, 2, 3) for seed in (0, 7)}
    report = pool(tables, tmp_path, {"folds": 3, "seeds": [0, 7]}, {"leakage": {"groups": 1}})
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written == report
    assert report["n"] == 36
    assert report["leakage"] == {"groups": 1}
    ensemble = np.concatenate([(tables[f, 0].probabilities + tables[f, 7].probabilities) / 2 for f in (1, 2, 3)])
    labels = np.concatenate([tables[f, 0].labels for f in (1, 2, 3)])
    assert report["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, ensemble.argmax(1)))
    folds = [
        balanced_accuracy_score(labels[i * 12 : i * 12 + 12], ensemble[i * 12 : i * 12 + 12].argmax(1))
        for i in range(3)
    ]
    assert report["spread"]["folds"]["balanced_accuracy"]["mean"] == pytest.approx(np.mean(folds))
    assert report["spread"]["folds"]["balanced_accuracy"]["sd"] == pytest.approx(np.std(folds, ddof=1))
    seven = np.concatenate([tables[f, 7].probabilities for f in (1, 2, 3)])
    of_seven = balanced_accuracy_score(labels, seven.argmax(1))
    assert report["seeds"][1]["balanced_accuracy"] == pytest.approx(of_seven)
    assert report["spread"]["seeds"]["balanced_accuracy"]["values"][1] == pytest.approx(of_seven)
    alone = json.loads((tmp_path / "seed_7" / "metrics.json").read_text())
    assert alone["balanced_accuracy"] == pytest.approx(of_seven)
    assert "no confidence interval" in " ".join(report["spread"]["note"].split())
    assert len(report["runs"]) == 6

    table = PredictionTable.read(tmp_path / "predictions.csv")  # the fold is no class
    assert table.class_names == NAMES
    assert np.allclose(table.probabilities[table.files.index("2_5.png")], ensemble[12 + 5], atol=1e-7)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"]: row["fold"] for row in rows} == {f: f[0] for f in table.files}
    assert all(row["group"] == f"P{row['file'][0]}_{int(row['file'][2:-4]) // 2}" for row in rows)
    with (tmp_path / "runs.csv").open(newline="") as file:
        assert [(row["fold"], row["seed"]) for row in csv.DictReader(file)][:2] == [("1", "0"), ("1", "7")]


def test_seeds_of_one_split(tmp_path: Path) -> None:
    report = pool({(0, seed): predictions(0, seed) for seed in (0, 1, 2)}, tmp_path, {"folds": 1, "seeds": [0, 1, 2]})
    assert report["spread"]["folds"] is None
    assert len(report["spread"]["seeds"]["auc"]["values"]) == 3
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert "fold" not in next(csv.reader(file))


def test_several_labels_and_a_fold_where_a_score_is_undefined(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (8, 2))
    labels[4:, 0] = 0
    tables = {
        (fold, 0): PredictionTable(
            ["a", "b"], [f"{fold}{i}" for i in range(4)], None, labels[fold * 4 - 4 : fold * 4], rng.random((4, 2)),
            "multilabel",
        )
        for fold in (1, 2)
    }  # fmt: skip
    report = pool(tables, tmp_path, {"folds": 2, "seeds": [0]})
    assert report["spread"]["folds"]["auc"]["mean"] is None  # no mean over fewer folds than there are
    assert report["auc"] is not None
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["file", "label", "prediction", "a", "b", "fold"]
