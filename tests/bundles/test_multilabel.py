"""Several findings a film: a bundle trains, evaluates and predicts with task multilabel; scikit-learn is the oracle."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss, roc_auc_score

from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.errors import CheckpointError, ConfigError, DataError, MedMambaError

from .conftest import BundleCopy, copy_bundle

NAMES = ["Effusion", "Mass", "Nodule"]
CELLS = ["No Finding", "Effusion", "Mass", "Nodule", "Effusion|Mass", "Mass|Nodule", "Effusion|Mass|Nodule"]


def write_films(folder: Path, count: int) -> dict[str, set[str]]:
    """Noise films (40, 48) in which each finding lights up a corner of its own; two films a patient, and the table."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows, truth = ["Image Index,Finding Labels,Patient ID"], {}
    for index in range(count):
        cell = CELLS[index % len(CELLS)]
        truth[f"{index:03d}.png"] = set(cell.split("|")) & set(NAMES)
        pixels = rng.integers(0, 90, (40, 48))
        for number, name in enumerate(NAMES):
            if name in cell:
                pixels[20 * (number // 2) :][:20, 24 * (number % 2) :][:, :24] += 120
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:03d}.png")
        rows.append(f"{index:03d}.png,{cell},P{index // 2}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return truth


def films(folder: Path) -> tuple[BundleCopy, dict[str, set[str]]]:
    bundle = copy_bundle("chest_xray_classification", folder, per_class=1)
    shutil.rmtree(bundle.data)
    return bundle, write_films(bundle.data, 70)


@pytest.fixture
def fresh_films(tmp_path: Path) -> BundleCopy:
    """The chest X-ray bundle, untrained, with films of several findings."""
    return films(tmp_path)[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[BundleCopy, dict[str, set[str]]]:
    """The chest X-ray bundle after five epochs and an evaluation, and the findings of each film."""
    bundle, truth = films(tmp_path_factory.mktemp("films"))
    bundle.run("train", task="multilabel", epochs=5, class_weights=True, mlflow=True, ema=True, ema_decay=0.5)
    bundle.run("evaluate")
    return bundle, truth


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def refused(kind: type[MedMambaError], bundle: BundleCopy, mode: str, **overrides: Any) -> str:
    with pytest.raises((RuntimeError, MedMambaError)) as caught:
        bundle.run(mode, **overrides)
    reason = root_cause(caught.value)
    assert isinstance(reason, kind), reason
    return str(reason)


def test_the_data_list_keeps_findings_and_patients(trained: tuple[BundleCopy, dict[str, set[str]]]) -> None:
    bundle, truth = trained
    datalist = json.loads((bundle.root / "eval" / "datalist.json").read_text())
    assert (datalist["task"], datalist["class_names"]) == ("multilabel", NAMES)
    found: dict[str, set[str]] = {}
    parts_of: dict[str, set[str]] = {}
    for part in ("training", "validation", "test"):
        for item in datalist[part]:
            found[item["image"]] = {name for name, flag in zip(NAMES, item["label"], strict=True) if flag}
            parts_of.setdefault(item["group"], set()).add(part)
        assert all(0 < sum(column) < len(column) for column in zip(*(i["label"] for i in datalist[part]), strict=True))
    assert found == truth
    assert all(len(parts) == 1 for parts in parts_of.values())


def test_evaluation_agrees_with_scikit_learn(trained: tuple[BundleCopy, dict[str, set[str]]]) -> None:
    bundle, truth = trained
    rows = read_csv(bundle.root / "eval" / "predictions.csv")
    datalist = json.loads((bundle.root / "eval" / "datalist.json").read_text())
    assert [row["file"] for row in rows] == sorted(item["image"] for item in datalist["test"])
    assert list(rows[0]) == ["file", "group", "label", "prediction", *NAMES]
    labels = np.array([[name in truth[row["file"]] for name in NAMES] for row in rows]).astype(int)
    values = np.array([[float(row[name]) for name in NAMES] for row in rows])
    called = (values >= 0.5).astype(int)
    for row, flags, answers in zip(rows, labels, called, strict=True):
        for column, wanted in (("label", flags), ("prediction", answers)):
            cell = "|".join(name for name, flag in zip(NAMES, wanted, strict=True) if flag)
            assert row[column] == (cell or "No Finding")
    metrics = json.loads((bundle.root / "eval" / "metrics.json").read_text())
    assert metrics["task"] == "multilabel"
    own = {"calibration.temperature", "conformal", "ood"}
    others = {name for name in metrics["undefined"] if not name.startswith("thresholded.")} - own
    assert not [name for name in others if not name.endswith("auc_delong") and "intervals." not in name]
    expected = {
        "auc": roc_auc_score(labels, values, average="macro"),
        "average_precision": average_precision_score(labels, values, average="macro"),
        "f1": f1_score(labels, called, average="macro"),
        "exact_match": accuracy_score(labels, called),
        "hamming_loss": hamming_loss(labels, called),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert metrics["auc"] > 0.9, "the corners are not learnt"


def test_the_best_weights_are_those_of_the_best_auc(trained: tuple[BundleCopy, dict[str, set[str]]]) -> None:
    from mlflow.tracking import MlflowClient

    bundle, _ = trained
    info = json.loads((bundle.root / "models" / "model.json").read_text())
    assert (info["task"], info["class_names"]) == ("multilabel", NAMES)
    client = MlflowClient(f"sqlite:///{bundle.root / 'eval' / 'mlruns.db'}")
    runs = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    (run,) = (run for run in runs if "train_loss" in run.data.metrics)
    assert run.data.params["task"] == "multilabel"
    assert run.data.params["key_metric"] == "auc"
    watched = {"val_auc", "val_average_precision", "val_f1", "val_exact_match", "train_exact_match"}
    assert watched <= set(run.data.metrics)


def test_the_loss_weights_rare_findings(fresh_films: BundleCopy) -> None:
    flow = fresh_films.workflow("train", task="multilabel", class_weights=True, label_smoothing=0.0)
    flow.initialize()
    splits = flow.parser.get_parsed_content("splits")
    labels = np.array(splits.labels("training"))
    loss = flow.parser.get_parsed_content("loss")
    np.testing.assert_allclose(loss.pos_weight, (1 - labels).sum(0) / labels.sum(0), rtol=1e-6)
    batch = next(iter(flow.parser.get_parsed_content("train::dataloader")))
    assert batch["label"].shape == (8, 3)
    assert batch["label"].dtype == torch.float32
    by_file = {item["file"]: item["label"].tolist() for item in splits.items("training")}
    assert batch["label"].tolist() == [by_file[file] for file in batch["file"]]


def test_inference_predicts_what_evaluation_predicted(
    trained: tuple[BundleCopy, dict[str, set[str]]], tmp_path: Path
) -> None:
    bundle, truth = trained
    bundle.run("inference", output_dir=str(tmp_path))
    rows = {row["file"]: row for row in read_csv(tmp_path / "predictions.csv")}
    assert rows.keys() == truth.keys()
    for evaluated in read_csv(bundle.root / "eval" / "predictions.csv"):
        predicted = rows[evaluated["file"]]
        assert [float(predicted[n]) for n in NAMES] == pytest.approx([float(evaluated[n]) for n in NAMES], abs=1e-5)
        assert predicted["prediction"] == evaluated["prediction"]


def test_resume_goes_on_and_keeps_to_the_task(fresh_films: BundleCopy) -> None:
    fresh_films.run("train", task="multilabel", epochs=1)
    state = fresh_films.root / "models" / "checkpoint.pt"
    flow = fresh_films.run("train", task="multilabel", epochs=2, resume=True)
    assert flow.trainer.state.epoch == 2
    assert torch.load(state, weights_only=True)["task"] == "multilabel"


def test_weights_of_one_task_are_refused_for_the_other(
    trained: tuple[BundleCopy, dict[str, set[str]]], fresh: BundleCopy, tmp_path: Path
) -> None:
    out = {"output_dir": str(tmp_path)}
    bundle, _ = trained
    for mode in ("evaluate", "inference"):
        message = refused(CheckpointError, bundle, mode, task="multiclass", **out)
        assert "trained with task multilabel, now multiclass is asked for" in message
    fresh.run("train")
    for mode in ("evaluate", "inference"):
        message = refused(CheckpointError, fresh, mode, task="multilabel", **out)
        assert "trained with task multiclass, now multilabel is asked for" in message
    assert not (tmp_path / "predictions.csv").exists()


@pytest.mark.parametrize(
    ("overrides", "kind", "words"),
    [
        ({"balanced_sampling": True}, ConfigError, "balanced_sampling needs one class an image"),
        ({"key_metric": "quadratic_kappa"}, ConfigError, "no metric 'quadratic_kappa' for task multilabel"),
        ({"key_metric": "balanced_accuracy"}, ConfigError, "one of: auc, average_precision"),
        ({"loss::_target_": "medmamba_monai.engines.OrdinalLoss"}, ConfigError, "has no grades"),
        ({"task": "multi-label"}, ConfigError, "task must be one of multiclass, multilabel"),
        ({"uncertain_labels": "ones"}, ConfigError, "uncertain_labels must be one of refuse"),
        ({"task": "multiclass"}, DataError, "label 'Effusion|Mass' names several classes.*--task multilabel"),
    ],
)
def test_what_does_not_go_together_says_so(
    fresh_films: BundleCopy, overrides: dict[str, Any], kind: type[MedMambaError], words: str
) -> None:
    message = refused(kind, fresh_films, "train", **{"task": "multilabel", **overrides})
    assert re.search(words, message)
    assert not (fresh_films.root / "models").exists()


def test_class_folders_are_no_findings(fresh: BundleCopy) -> None:
    assert "labels.csv" in refused(DataError, fresh, "train", task="multilabel")


def test_columns_of_0_and_1_with_uncertain_answers(fresh_films: BundleCopy) -> None:
    rows = read_csv(fresh_films.data / "labels.csv")
    lines = ["Path,Age,Nodule,Effusion,Mass"]
    for index, row in enumerate(rows):
        cells = ["1.0" if name in row["Finding Labels"] else "0.0" for name in ("Nodule", "Effusion", "Mass")]
        lines.append(",".join([row["Image Index"], "63", *(["-1.0", "", cells[2]] if index == 7 else cells)]))
    (fresh_films.data / "labels.csv").write_text("\n".join(lines))
    given: dict[str, Any] = {"task": "multilabel"}
    assert "class_names=['Nodule', 'Effusion', 'Mass']" in refused(DataError, fresh_films, "train", **given)
    given["class_names"] = ["Effusion", "Mass", "Nodule"]
    message = refused(DataError, fresh_films, "train", **given)
    assert "labels.csv, row 9: column 'Effusion' is empty" in message
    assert "--uncertain_labels" in message
    fresh_films.run("train", uncertain_labels="positive", **given)
    datalist = json.loads((fresh_films.root / "eval" / "datalist.json").read_text())
    labels = {item["image"]: item["label"] for part in ("training", "validation", "test") for item in datalist[part]}
    assert labels["007.png"] == [0, 0, 1]
    fresh_films.run("evaluate")
    assert json.loads((fresh_films.root / "eval" / "metrics.json").read_text())["class_names"] == NAMES
