"""A bundle fits its calibration when it is trained, uses it on request, and refuses that of other weights."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmamba_monai import cli
from medmamba_monai.bundling.pack import pack
from medmamba_monai.bundling.release import Release, lock_differences
from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.bundling.trial import on_trial
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.handlers.files import sha256_of
from medmamba_monai.metrics import PredictionTable
from medmamba_monai.metrics.calibration import Calibration

from .conftest import PICTURES, BundleCopy, copy_bundle

SMALLEST = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64], "d_state": 4, "in_channels": 1}
NETWORK = {"_target_": "medmamba_monai.networks.MedMamba", **SMALLEST, "num_classes": "$len(@classes)"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> BundleCopy:
    """A bundle after two epochs with a moving average; tests must not change it."""
    bundle = copy_bundle("breast_ultrasound_classification", tmp_path_factory.mktemp("calibrated"), per_class=50)
    bundle.run("train", network_def=NETWORK, epochs=2, ema=True)
    return bundle


def stored(bundle: BundleCopy) -> dict[str, Any]:
    return json.loads((bundle.root / "models" / "calibration.json").read_text(encoding="utf-8"))


def refused(kind: type[Exception], bundle: BundleCopy, mode: str, **overrides: Any) -> str:
    with pytest.raises((RuntimeError, kind)) as caught:
        bundle.run(mode, **overrides)
    reason = root_cause(caught.value)
    assert isinstance(reason, kind), reason
    return str(reason)


def test_what_training_fits_is_what_its_validation_part_gives(trained: BundleCopy, tmp_path: Path) -> None:
    content = stored(trained)
    assert content["weights_sha256"] == sha256_of(trained.root / "models" / "model.pt")
    trained.run("evaluate", split="validation", output_dir=str(tmp_path), datalist=datalist(trained))
    table = PredictionTable.read(tmp_path / "predictions.csv")
    expected = Calibration.fit(table.labels, table.probabilities, table.class_names)
    found = Calibration.from_json(content, "")
    assert found.n == len(table.files)
    assert found.set_threshold == pytest.approx(expected.set_threshold, abs=1e-4)
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-3)


def datalist(bundle: BundleCopy) -> str:
    return str(bundle.root / "eval" / "datalist.json")


def test_evaluation_reports_and_applies_it_on_request(trained: BundleCopy, tmp_path: Path) -> None:
    given: dict[str, Any] = {"datalist": datalist(trained)}
    trained.run("evaluate", output_dir=str(tmp_path / "raw"), **given)
    given |= {"calibrated": True, "prediction_sets": True, **PICTURES}
    trained.run("evaluate", output_dir=str(tmp_path / "calibrated"), **given)
    metrics = {name: json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("raw", "calibrated")}
    raw, after = metrics["raw"], metrics["calibrated"]
    assert raw["calibration"]["applied"] is False
    assert after["calibration"]["applied"] is True
    assert {"thresholded", "conformal", "referral"} <= set(raw)
    assert raw["conformal"] == after["conformal"]
    assert raw["accuracy"] == after["accuracy"]
    tables = [PredictionTable.read(tmp_path / name / "predictions.csv") for name in ("raw", "calibrated")]
    calibration = Calibration.from_json(stored(trained), "")
    np.testing.assert_allclose(tables[1].probabilities, calibration.apply(tables[0].probabilities), atol=1e-6)
    with (tmp_path / "calibrated" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        sizes = [len(row["prediction_set"].split("|")) if row["prediction_set"] else 0 for row in csv.DictReader(file)]
    assert np.mean(sizes) == pytest.approx(after["conformal"]["mean_set_size"])


def test_inference_takes_it_too_and_files_are_as_before_without(trained: BundleCopy, tmp_path: Path) -> None:
    trained.run("inference", output_dir=str(tmp_path / "raw"))
    header = (tmp_path / "raw" / "predictions.csv").read_text().splitlines()[0]
    assert header == "file,prediction,benign,malignant,normal"
    trained.run(
        "inference", output_dir=str(tmp_path / "calibrated"), calibrated=True, prediction_sets=True, ood_score=True
    )
    header = (tmp_path / "calibrated" / "predictions.csv").read_text().splitlines()[0]
    assert header == "file,prediction,prediction_set,ood_score,benign,malignant,normal"


def test_old_weights_get_a_calibration_of_their_own(trained: BundleCopy, tmp_path: Path) -> None:
    from monai.bundle import ConfigWorkflow

    shutil.copytree(trained.root / "models", tmp_path / "models")
    (tmp_path / "models" / "calibration.json").unlink()
    given = {"ckpt_dir": str(tmp_path / "models"), "output_dir": str(tmp_path), "datalist": datalist(trained)}
    assert "--run_id calibrate" in refused(CheckpointError, trained, "evaluate", calibrated=True, **given)
    trained.run("evaluate", **given)
    assert "calibration" not in json.loads((tmp_path / "metrics.json").read_text())

    def calibrate(split: str) -> None:
        overrides = {**given, "dataset_dir": str(trained.data), "mlflow": False, "device": "cpu", "split": split}
        flow = ConfigWorkflow(
            trained.files("evaluate"),
            workflow_type="train",
            logging_file=False,
            run_id="calibrate",
            bundle_root=str(trained.root),
            **overrides,
        )
        flow.initialize()
        flow.run()

    with pytest.raises(RuntimeError) as caught:
        calibrate("test")
    assert isinstance(root_cause(caught.value), ConfigError)
    calibrate("validation")
    again = json.loads((tmp_path / "models" / "calibration.json").read_text())
    assert again["n"] == stored(trained)["n"]
    assert again["temperature"] == pytest.approx(stored(trained)["temperature"], rel=1e-3)


def test_that_of_other_weights_is_refused(trained: BundleCopy, tmp_path: Path) -> None:
    shutil.copytree(trained.root / "models", tmp_path / "models")
    content = {**stored(trained), "weights_sha256": "0" * 64}
    (tmp_path / "models" / "calibration.json").write_text(json.dumps(content))
    given = {"ckpt_dir": str(tmp_path / "models"), "output_dir": str(tmp_path), "datalist": datalist(trained)}
    for key in ("calibrated", "prediction_sets"):
        assert "other weights" in refused(CheckpointError, trained, "inference", **{**given, key: True})
    trained.run("evaluate", **given)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["calibration"] is None
    assert "other weights" in metrics["undefined"]["calibration"]


def test_its_arrays_have_to_come_along(trained: BundleCopy, tmp_path: Path) -> None:
    shutil.copytree(trained.root / "models", tmp_path / "models")
    (tmp_path / "models" / "calibration.safetensors").unlink()
    given = {"ckpt_dir": str(tmp_path / "models"), "output_dir": str(tmp_path)}
    assert "calibration.safetensors" in refused(CheckpointError, trained, "inference", ood_score=True, **given)
    trained.run("inference", **given)


@pytest.fixture(scope="module")
def released(trained: BundleCopy, tmp_path_factory: pytest.TempPathFactory) -> BundleCopy:
    """The trained bundle, its small network in its configs, evaluated; tests must not change it."""
    root = shutil.copytree(trained.root, tmp_path_factory.mktemp("released") / trained.root.name)
    config = root / "configs" / "inference.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "network_def": NETWORK}))
    bundle = BundleCopy(root, trained.data)
    bundle.run("evaluate", datalist=datalist(bundle))
    return bundle


def test_it_works_from_an_unpacked_zip(released: BundleCopy, tmp_path: Path) -> None:
    packed = pack(released.root, tmp_path, Release(released.root / "models" / "model.pt"))
    assert {"models/calibration.json", "models/calibration.safetensors"} <= set(packed.files)
    shutil.unpack_archive(packed.file, tmp_path / "unpacked")
    unpacked = BundleCopy(tmp_path / "unpacked" / released.root.name, released.data)
    assert lock_differences(unpacked.root) == []
    with on_trial(unpacked.root) as trial:
        assert lock_differences(trial.folder) == []
    for bundle, name in ((released, "here"), (unpacked, "there")):
        bundle.run("inference", output_dir=str(tmp_path / name), calibrated=True, ood_score=True)
    assert (tmp_path / "here" / "predictions.csv").read_text() == (tmp_path / "there" / "predictions.csv").read_text()


def test_a_released_calibration_names_no_path_of_one_machine(released: BundleCopy, tmp_path: Path) -> None:
    shutil.copytree(released.root / "models", tmp_path / "models")
    file = tmp_path / "models" / "calibration.json"
    file.write_text(json.dumps({**stored(released), "remarks": ["see /home/ann/images"]}))
    release = Release(tmp_path / "models" / "model.pt", released.root / "eval" / "metrics.json")
    with pytest.raises(ConfigError, match=r"models/calibration\.json names /home/ann"):
        pack(released.root, tmp_path, release)


def test_an_exported_file_takes_the_temperature_and_tells_unusual_images_by_energy(
    trained: BundleCopy, tmp_path: Path
) -> None:
    exported = tmp_path / "network.ts"
    assert cli.main(["export", str(trained.root), "--format", "torchscript", "--output", str(exported)]) == 0
    given = {"datalist": datalist(trained), "calibrated": True, "ood_score": True}
    trained.run("evaluate", output_dir=str(tmp_path / "weights"), **given)
    trained.run("evaluate", output_dir=str(tmp_path / "exported"), exported=str(exported), **given)
    tables = [PredictionTable.read(tmp_path / name / "predictions.csv") for name in ("weights", "exported")]
    np.testing.assert_allclose(tables[1].probabilities, tables[0].probabilities, atol=1e-4)
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("weights", "exported")]
    assert [entry["ood"]["method"] for entry in metrics] == ["mahalanobis", "energy"]
    assert metrics[1]["calibration"]["applied"] is True
