"""calibration.json is found, tied to its weights, applied and reported; without a run of a bundle."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from medmamba_monai.bundling.calibration import (
    FILE_NAME,
    SafetyReport,
    StoredCalibration,
    TemperProbabilitiesd,
    add_columns,
    stored_calibration,
    weights_digest,
)
from medmamba_monai.errors import CheckpointError
from medmamba_monai.handlers.files import sha256_of
from medmamba_monai.metrics import PredictionTable
from medmamba_monai.metrics.calibration import Calibration

NAMES = ["a", "b", "c"]
KNOWN = Calibration("multiclass", NAMES, 50, 2.0, {"a": 0.4, "b": 0.3, "c": None}, {"a": 0.4}, "youden", 0.1, 0.75)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Weights and their calibration."""
    (tmp_path / "model.pt").write_bytes(b"weights")
    write(tmp_path, weights_digest(tmp_path))
    return tmp_path


def write(folder: Path, digest: str) -> None:
    content = {**KNOWN.to_json(), "weights_sha256": digest}
    (folder / FILE_NAME).write_text(json.dumps(content), encoding="utf-8")


def test_the_right_one_is_read(folder: Path) -> None:
    assert weights_digest(folder) == sha256_of(folder / "model.pt")
    assert stored_calibration(str(folder), NAMES, required=True) == StoredCalibration(KNOWN)


def test_none_is_no_mistake_unless_it_was_asked_for(tmp_path: Path) -> None:
    assert stored_calibration(str(tmp_path), NAMES) == StoredCalibration(None)
    with pytest.raises(CheckpointError, match=r"calibration\.json: there is no calibration.*--run_id calibrate"):
        stored_calibration(str(tmp_path), NAMES, required=True)


def test_that_of_other_weights_classes_or_tasks_is_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for names, task in ((["a", "c", "b"], "multiclass"), (NAMES, "multilabel")):
        with pytest.raises(CheckpointError, match="it was fitted for multiclass"):
            stored_calibration(str(folder), names, task, required=True)
    with pytest.raises(CheckpointError, match="weights in ckpt_dir, which are not used"):
        stored_calibration(str(folder), NAMES, required=True, weights_given=True)
    (folder / "model.pt").write_bytes(b"trained anew")
    with pytest.raises(CheckpointError, match="fitted with other weights"):
        stored_calibration(str(folder), NAMES, required=True)
    found = stored_calibration(str(folder), NAMES)
    assert found.calibration is None
    assert "other weights" in str(found.reason)
    assert "is not used" in caplog.text


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}'])
def test_a_damaged_one_is_an_error(text: str, folder: Path) -> None:
    (folder / FILE_NAME).write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read"):
        stored_calibration(str(folder), NAMES)


def test_probabilities_get_the_temperature() -> None:
    transform = TemperProbabilitiesd("pred", StoredCalibration(KNOWN))
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 4.0, 0.0]])
    expected = (logits / 2).softmax(1)
    assert torch.allclose(transform({"pred": logits.softmax(1), "x": 1})["pred"], expected)
    single = transform({"pred": logits[0].softmax(0)})["pred"]
    assert torch.allclose(single, expected[0])
    assert single.dtype == torch.float32


def test_without_a_temperature_or_sets_the_request_is_refused() -> None:
    lacking = Calibration("multiclass", NAMES, 5, None, {}, {}, "youden", 0.1, None, ["no temperature: five images"])
    with pytest.raises(CheckpointError, match="no temperature to apply: no temperature: five images"):
        TemperProbabilitiesd("pred", StoredCalibration(lacking))
    with pytest.raises(CheckpointError, match="no prediction sets"):
        SafetyReport("out", StoredCalibration(lacking), prediction_sets=True)


def predictions(folder: Path, labelled: bool = True) -> Path:
    rng = np.random.default_rng(0)
    rows = [["file", *(["label"] if labelled else []), "prediction", *NAMES]]
    for index in range(12):
        values = rng.dirichlet([1, 1, 1])
        label = [NAMES[index % 3]] if labelled else []
        rows.append([f"{index}, é.png", *label, NAMES[int(values.argmax())], *(f"{value:.8g}" for value in values)])
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return folder / "predictions.csv"


def test_the_report_completes_both_files(tmp_path: Path) -> None:
    before = PredictionTable.read(predictions(tmp_path))
    (tmp_path / "metrics.json").write_text('{"accuracy": 0.5, "undefined": {"auc": "why"}}')
    SafetyReport(tmp_path, StoredCalibration(KNOWN), prediction_sets=True)(Engine(lambda *_: None))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["accuracy"] == 0.5
    assert {"calibration", "thresholded", "conformal", "referral"} <= set(metrics)
    assert metrics["undefined"]["auc"] == "why"
    assert "thresholded.c" in metrics["undefined"]
    after = PredictionTable.read(tmp_path / "predictions.csv")
    assert (after.files, after.class_names) == (before.files, before.class_names)
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sets = KNOWN.sets(KNOWN.apply(before.probabilities)) or []
    assert [row["prediction_set"] for row in rows] == ["|".join(names) for names in sets]
    assert list(rows[0])[:4] == ["file", "label", "prediction", "prediction_set"]


def test_without_a_calibration_files_stay_and_a_reason_is_told(tmp_path: Path) -> None:
    file = predictions(tmp_path)
    (tmp_path / "metrics.json").write_text('{"accuracy": 0.5}')
    before = file.read_bytes(), (tmp_path / "metrics.json").read_bytes()
    SafetyReport(tmp_path, StoredCalibration(None))(Engine(lambda *_: None))
    assert (file.read_bytes(), (tmp_path / "metrics.json").read_bytes()) == before
    SafetyReport(tmp_path, StoredCalibration(None, "other weights"))(Engine(lambda *_: None))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["calibration"] is None
    assert metrics["undefined"] == {"calibration": "other weights"}


def test_averages_keep_nothing_that_was_fitted_on_single_predictions(tmp_path: Path) -> None:
    averages = StoredCalibration(KNOWN).for_averages()
    assert (averages.calibration, averages.averaged) == (None, True)
    assert StoredCalibration(None).for_averages() == StoredCalibration(None)
    with pytest.raises(CheckpointError, match="averages"):
        TemperProbabilitiesd("pred", averages)
    file = predictions(tmp_path)
    before = file.read_bytes()
    (tmp_path / "metrics.json").write_text('{"accuracy": 0.5}')
    SafetyReport(tmp_path, averages)(Engine(lambda *_: None))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "averages" in metrics.pop("undefined")["calibration"]
    assert metrics == {"accuracy": 0.5, "calibration": None}
    assert file.read_bytes() == before


def test_predictions_without_labels_get_their_column_alone(tmp_path: Path) -> None:
    predictions(tmp_path, labelled=False)
    SafetyReport(tmp_path, StoredCalibration(KNOWN), prediction_sets=True, labelled=False)(Engine(lambda *_: None))
    assert not (tmp_path / "metrics.json").exists()
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0]
    assert header == "file,prediction,prediction_set,a,b,c"


def test_columns_need_a_value_for_every_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        add_columns(predictions(tmp_path), {"x": ["1"]})
