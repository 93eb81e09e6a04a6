"""A bundle whose evaluation and inference average views and networks, against averages of its own tables."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.metrics import PredictionTable

from .conftest import BundleCopy, copy_bundle

SMALLEST = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64], "d_state": 4, "in_channels": 1}
NETWORK = {"_target_": "medmamba_monai.networks.MedMamba", **SMALLEST, "num_classes": "$len(@classes)"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> BundleCopy:
    """A bundle after one epoch, and beside its weights others of another seed; tests must not change it."""
    bundle = copy_bundle("breast_ultrasound_classification", tmp_path_factory.mktemp("averaged"), per_class=50)
    bundle.run("train", network_def=NETWORK)
    shutil.copytree(bundle.root / "models", bundle.root / "other")
    state = torch.load(bundle.root / "models" / "model.pt", weights_only=True)
    generator = torch.Generator().manual_seed(1)
    changed = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in state.items()
    }
    torch.save(changed, bundle.root / "other" / "model.pt")
    (bundle.root / "other" / "checkpoints.json").unlink(missing_ok=True)
    return bundle


def given(bundle: BundleCopy, **options: Any) -> dict[str, Any]:
    return {"datalist": str(bundle.root / "eval" / "datalist.json"), **options}


def table(bundle: BundleCopy, folder: Path, **options: Any) -> PredictionTable:
    bundle.run("evaluate", output_dir=str(folder), **given(bundle, **options))
    return PredictionTable.read(folder / "predictions.csv")


def test_training_records_its_flips(trained: BundleCopy) -> None:
    assert json.loads((trained.root / "models" / "model.json").read_text())["extra"]["flips"] == [[1]]


def test_evaluation_averages_views_and_networks(
    trained: BundleCopy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = str(trained.root / "other")
    singles = []
    for number, folder in enumerate((str(trained.root / "models"), other)):
        for mirrored in (False, True):
            flow = trained.workflow(
                "evaluate",
                output_dir=str(tmp_path / f"{number}{mirrored}"),
                **given(trained, ckpt_dir=folder),
            )
            flow.initialize()
            if mirrored:
                dataset = flow.parser.get_parsed_content("validate::dataset")
                from monai.transforms import Compose, Flipd

                dataset.transform = Compose([dataset.transform, Flipd("image", 1)])
            flow.run()
            flow.finalize()
            singles.append(PredictionTable.read(tmp_path / f"{number}{mirrored}" / "predictions.csv"))
    assert np.abs(singles[0].probabilities - singles[2].probabilities).max() > 1e-3
    assert np.abs(singles[0].probabilities - singles[1].probabilities).max() > 1e-4
    caplog.set_level(logging.INFO)
    both = table(trained, tmp_path / "both", tta=True, ensemble=[other])
    assert both.files == singles[0].files
    np.testing.assert_allclose(both.probabilities, np.mean([each.probabilities for each in singles], 0), atol=1e-5)
    assert "averages 2 views" in caplog.text
    metrics = json.loads((tmp_path / "both" / "metrics.json").read_text())
    assert metrics["averaged"] == {"views": 2, "members": 2}
    assert metrics["calibration"] is None
    assert "single" in metrics["undefined"]["calibration"]
    assert not {"conformal", "thresholded", "referral"} & set(metrics)
    plain = json.loads((tmp_path / "0False" / "metrics.json").read_text())
    assert "averaged" not in plain
    assert "conformal" in plain
    assert metrics["ood"] == pytest.approx(plain["ood"])  # of the network in ckpt_dir and the image as it is


def test_inference_averages_too_and_images_stay_as_unusual(trained: BundleCopy, tmp_path: Path) -> None:
    other = str(trained.root / "other")
    for name, options in {"plain": {}, "mean": {"tta": True, "ensemble": other}}.items():
        trained.run("inference", output_dir=str(tmp_path / name), ood_score=True, **options)
    lines = [(tmp_path / name / "predictions.csv").read_text().splitlines() for name in ("plain", "mean")]
    assert lines[0][0] == lines[1][0] == "file,prediction,ood_score,benign,malignant,normal"
    cells = [np.array([line.split(",") for line in part[1:]]) for part in lines]
    assert np.array_equal(cells[0][:, 2], cells[1][:, 2])
    assert not np.array_equal(cells[0][:, 3:], cells[1][:, 3:])


def refused(bundle: BundleCopy, mode: str, **options: Any) -> Exception:
    with pytest.raises((RuntimeError, ConfigError, CheckpointError)) as caught:
        bundle.run(mode, **options)
    return root_cause(caught.value)


@pytest.mark.parametrize("mode", ["evaluate", "inference"])
def test_what_was_fitted_on_single_predictions_is_refused(trained: BundleCopy, mode: str, tmp_path: Path) -> None:
    options = given(trained) if mode == "evaluate" else {}
    for name in ("calibrated", "prediction_sets"):
        reason = refused(trained, mode, output_dir=str(tmp_path), tta=True, **{name: True}, **options)
        assert isinstance(reason, ConfigError)
        assert f"leave --{name} out" in str(reason)


def test_a_model_without_flips_is_refused(trained: BundleCopy, tmp_path: Path) -> None:
    folder = shutil.copytree(trained.root / "models", tmp_path / "old")
    content = json.loads((folder / "model.json").read_text())
    del content["extra"]["flips"]
    (folder / "model.json").write_text(json.dumps(content))
    reason = refused(trained, "inference", output_dir=str(tmp_path), tta=True, ckpt_dir=str(folder))
    assert isinstance(reason, CheckpointError)
    assert "recorded" in str(reason)


def test_another_inferer_does_not_average_in_silence(trained: BundleCopy, tmp_path: Path) -> None:
    inferer = {"_target_": "monai.inferers.SimpleInferer"}
    reason = refused(trained, "inference", output_dir=str(tmp_path), tta=True, inferer=inferer)
    assert isinstance(reason, ConfigError)
    assert "SimpleInferer" in str(reason)


def test_a_calibration_is_not_fitted_on_averages(trained: BundleCopy, tmp_path: Path) -> None:
    flow = trained.workflow("evaluate", output_dir=str(tmp_path), **given(trained, split="validation", tta=True))
    flow.initialize()
    with pytest.raises((RuntimeError, ConfigError)) as caught:
        flow.parser.get_parsed_content("calibrate")
    assert "single predictions" in str(root_cause(caught.value))
