"""The table of predictions and the metrics file, from real evaluators, with planted mistakes."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd, AsDiscreted, Compose
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from medmamba_monai.engines import EvaluationStep
from medmamba_monai.errors import ConfigError, DataError
from medmamba_monai.handlers import PredictionWriter
from medmamba_monai.metrics import classification_report, evaluation_of, multilabel_report

NAMES = ["benign", "malignant", "normal"]


class Scores(torch.nn.Module):
    """Gives the numbers that are stored in the image as logits."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1)


def data(count: int = 10, labelled: bool = True) -> list[dict[str, Any]]:
    generator = np.random.RandomState(0)
    found = []
    for index in range(count):
        item = {
            "image": torch.as_tensor(generator.randn(3), dtype=torch.float32),
            "file": f"b/{count - index:02d}, ünï.png",
        }
        found.append(item | ({"label": index % 3} if labelled else {}))
    return found


def evaluate(
    items: list[dict[str, Any]], writer: PredictionWriter, postprocessing: Any = None, decollate: bool = True
) -> None:
    SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=DataLoader(Dataset(items), batch_size=4), network=Scores(),
        iteration_update=EvaluationStep(), postprocessing=postprocessing, decollate=decollate, val_handlers=[writer],
    ).run()  # fmt: skip


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("decollate", [True, False])
def test_table_and_metrics(tmp_path: Path, decollate: bool) -> None:
    items = data()
    writer = PredictionWriter(tmp_path, NAMES, metrics=classification_report, softmax=True)
    evaluate(items, writer, decollate=decollate)
    table = rows(tmp_path)
    assert list(table[0]) == ["file", "label", "prediction", *NAMES]
    assert [row["file"] for row in table] == sorted(item["file"] for item in items)
    by_file = {item["file"]: item for item in items}
    for row in table:
        expected = torch.softmax(by_file[row["file"]]["image"].double(), 0)
        np.testing.assert_allclose([float(row[name]) for name in NAMES], expected, atol=1e-6)
        assert row["label"] == NAMES[by_file[row["file"]]["label"]]
        assert row["prediction"] == NAMES[int(expected.argmax())]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    truth = [row["label"] for row in table]
    assert metrics["n"] == 10
    assert metrics["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(truth, [row["prediction"] for row in table])
    )


def test_postprocessed_probabilities_and_one_hot_labels(tmp_path: Path) -> None:
    post = Compose([Activationsd("pred", softmax=True), AsDiscreted("label", to_onehot=3)])
    evaluate(data(), PredictionWriter(tmp_path / "a", NAMES, metrics=classification_report), post)
    evaluate(data(), PredictionWriter(tmp_path / "b", NAMES, metrics=classification_report, softmax=True))
    for one, other in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        assert [one[key] for key in ("file", "label", "prediction")] == [
            other[key] for key in ("file", "label", "prediction")
        ]
        assert [float(one[name]) for name in NAMES] == pytest.approx([float(other[name]) for name in NAMES])
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ab")
    assert first["confusion_matrix"] == second["confusion_matrix"] and first["auc"] == second["auc"]
    assert first["log_loss"] == pytest.approx(second["log_loss"], rel=1e-6)


def test_without_labels(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, NAMES, metrics=classification_report, labelled="false", softmax=True)
    evaluate(data(labelled=False), writer)
    assert list(rows(tmp_path)[0]) == ["file", "prediction", *NAMES]
    assert not (tmp_path / "metrics.json").exists()
    with pytest.raises(DataError, match="no label.*set labelled to false"):
        evaluate(data(labelled=False), PredictionWriter(tmp_path, NAMES, softmax=True))


def test_an_absent_class_is_null_with_a_reason(tmp_path: Path) -> None:
    items = [item for item in data() if item["label"] != 2]
    evaluate(items, PredictionWriter(tmp_path, NAMES, metrics=classification_report, softmax=True))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["auc"] is None
    assert metrics["undefined"]["auc"] == "undefined for: normal"


def test_file_names_from_the_image(tmp_path: Path) -> None:
    items = [
        {"image": MetaTensor(torch.zeros(3), meta={"filename_or_obj": f"{index}.png"}), "label": 0}
        for index in range(3)
    ]
    evaluate(items, PredictionWriter(tmp_path, NAMES, softmax=True))
    assert [row["file"] for row in rows(tmp_path)] == ["0.png", "1.png", "2.png"]
    with pytest.raises(DataError, match="neither 'file' nor image metadata"):
        evaluate([{"image": torch.zeros(3), "label": 0}], PredictionWriter(tmp_path, NAMES, softmax=True))


def test_logits_are_not_taken_for_probabilities(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are no probabilities.*softmax"):
        evaluate(data(), PredictionWriter(tmp_path, NAMES))
    assert not (tmp_path / "predictions.csv").exists()


def test_wrong_classes_labels_and_numbers_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ünï.png: 3 predicted values for 2 classes"):
        evaluate(data(), PredictionWriter(tmp_path, NAMES[:2], softmax=True))
    items = data(2)
    items[1]["label"] = 7
    with pytest.raises(DataError, match="01, ünï.png: label 7 lies outside the 3 classes"):
        evaluate(items, PredictionWriter(tmp_path, NAMES, softmax=True))
    items = data(2)
    items[0]["image"][1] = math.nan
    with pytest.raises(DataError, match="02, ünï.png: the prediction is not finite"):
        evaluate(items, PredictionWriter(tmp_path, NAMES, softmax=True))


@pytest.mark.parametrize("names", [["a", "a"], ["a", "file"], ["prediction", "b"]])
def test_names_of_columns_must_differ(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="occurs twice or is the name of another column"):
        PredictionWriter("out", names)


def test_a_second_evaluation_starts_anew(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, NAMES, softmax=True)
    evaluate(data(4), writer)
    evaluate(data(6), writer)
    assert len(rows(tmp_path)) == 6


def findings(count: int = 10) -> list[dict[str, Any]]:
    """Items with a 0 or 1 for each class instead of a class number."""
    return [
        item | {"label": torch.tensor([index % 2, int(index % 3 == 0), 0]).float()}
        for index, item in enumerate(data(count, labelled=False))
    ]


@pytest.mark.parametrize("softmax", [True, False])
def test_several_classes_an_image(tmp_path: Path, softmax: bool) -> None:
    items = findings()
    post = None if softmax else Activationsd("pred", sigmoid=True)
    writer = PredictionWriter(
        tmp_path, NAMES, multilabel_report, softmax=softmax, task="multilabel", threshold=0.4, remarks={"seen": 1}
    )
    evaluate(items, writer, post)
    by_file = {item["file"]: item for item in items}
    for row in rows(tmp_path):
        item = by_file[row["file"]]
        expected = torch.sigmoid(item["image"].double())
        np.testing.assert_allclose([float(row[name]) for name in NAMES], expected, atol=1e-6)
        for column, flags in (("label", item["label"]), ("prediction", expected >= 0.4)):
            cell = "|".join(name for name, flag in zip(NAMES, flags, strict=True) if flag)
            assert row[column] == (cell or "No Finding")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["seen"], metrics["threshold"], metrics["task"]) == (1, 0.4, "multilabel")
    assert metrics["per_class"]["normal"]["auc"] is None
    assert metrics["undefined"]["auc"] == "undefined for: normal"
    labels = np.array([by_file[row["file"]]["label"].numpy() for row in rows(tmp_path)])
    called = np.array([[float(row[name]) >= 0.4 for name in NAMES] for row in rows(tmp_path)])
    assert metrics["exact_match"] == pytest.approx(accuracy_score(labels, called))


def test_several_classes_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are no probabilities.*sigmoid"):
        evaluate(findings(), PredictionWriter(tmp_path, NAMES, task="multilabel"))
    for label in (torch.tensor(1), torch.tensor([0, 1]), torch.tensor([0, 2, 0])):
        items = [item | {"label": label} for item in findings(2)]
        with pytest.raises(DataError, match="ünï.png: label .* is no 0 or 1 for each class"):
            evaluate(items, PredictionWriter(tmp_path, NAMES, task="multilabel", softmax=True))
    with pytest.raises(ConfigError, match="task='multi'"):
        PredictionWriter(tmp_path, NAMES, task="multi")
    with pytest.raises(ConfigError, match="threshold=1.0"):
        PredictionWriter(tmp_path, NAMES, task="multilabel", threshold=1.0)


def test_groups_stand_beside_the_files(tmp_path: Path) -> None:
    items = data(4)
    groups = {items[0]["file"]: "P1", items[1]["file"]: "P1"}
    evaluate(items, PredictionWriter(tmp_path, NAMES, softmax=True, groups=groups))
    assert {row["file"]: row["group"] for row in rows(tmp_path)} == {
        i["file"]: groups.get(i["file"], "") for i in items
    }


def test_metrics_are_told_which_images_belong_together(tmp_path: Path) -> None:
    items = data(30)
    groups = {item["file"]: f"P{index // 2}" for index, item in enumerate(items[:20])}
    evaluate(items, PredictionWriter(tmp_path, NAMES, evaluation_of("multiclass"), softmax=True, groups=groups))
    resampling = json.loads((tmp_path / "metrics.json").read_text())["resampling"]
    assert (resampling["unit"], resampling["clusters"]) == ("group", 20)
    evaluate(items, PredictionWriter(tmp_path, NAMES, evaluation_of("multiclass"), softmax=True))
    resampling = json.loads((tmp_path / "metrics.json").read_text())["resampling"]
    assert (resampling["unit"], resampling["clusters"]) == ("image", 30)
