"""The model that MLflow keeps: complete, relocatable, the same preprocessing, and no news where it fails."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow.models import Model
from packaging.requirements import Requirement
from PIL import Image

from medmamba_monai.bundling import logged_model
from medmamba_monai.bundling.logged_model import LoggedModel, inference_settings, requirements
from medmamba_monai.bundling.privacy import personal_paths
from medmamba_monai.bundling.trial import on_trial
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder


class Client:
    """Keeps a copy of what a store would get; ``down`` names calls that it does not answer."""

    def __init__(self, folder: Path, down: tuple[str, ...] = ()) -> None:
        self.folder, self.down = folder, down
        self.calls: dict[str, tuple[Any, ...]] = {}

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if method in self.down:
            return None
        self.calls[method] = (*args, kwargs) if kwargs else args
        if method == "get_run":
            return type("Run", (), {"info": type("Info", (), {"experiment_id": "7"})})
        if method == "create_logged_model":
            return type("Logged", (), {"model_id": "m-1"})
        if method == "log_model_artifacts":
            shutil.copytree(args[1], self.folder / "stored")
        return True


def training_config(bundle: Path, **overrides: Any) -> dict[str, Any]:
    return {**json.loads((bundle / "configs" / "train.json").read_text()), **overrides}


@pytest.fixture
def picture(tmp_path: Path) -> str:
    file = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70), dtype=np.uint8)).save(file)
    return str(file)


def test_what_is_stored_predicts_elsewhere(bundle: Path, weights: Path, picture: str, tmp_path: Path) -> None:
    client = Client(tmp_path)
    (weights.parent / "calibration.json").write_text("{}")
    model = LoggedModel(bundle, weights.parent, training_config(bundle))
    assert model.log(client, "run") == "m-1"  # type: ignore[arg-type]
    assert model.files == [weights]
    assert client.calls["create_logged_model"][1]["source_run_id"] == "run"
    assert client.calls["create_logged_model"][1]["params"]["task"] == "multiclass"
    assert client.calls["finalize_logged_model"] == ("m-1", "READY")
    stored = Model.load(str(tmp_path / "stored"))
    assert (stored.run_id, stored.model_id, stored.artifact_path) == ("run", "m-1", "model")
    assert stored.signature.inputs.input_names() == ["image"]
    assert stored.signature.outputs.input_names() == ["prediction", "benign", "malignant", "normal"]
    files = [
        file for file in (tmp_path / "stored").rglob("*") if file.suffix not in (".pt", "") or file.name == "MLmodel"
    ]
    for file in files:
        assert personal_paths(file.read_text(), file.suffix == ".json", [str(tmp_path), str(bundle)]) == []
    before = mlflow.pyfunc.load_model(str(tmp_path / "stored"))
    probabilities = before.predict([{"image": picture}])
    example = before.predict(before.input_example)
    assert example.iloc[0, 1:].sum() == pytest.approx(1)
    for folder in (bundle, weights.parent):
        shutil.rmtree(folder)
    (tmp_path / "stored").rename(tmp_path / "elsewhere é")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "elsewhere é"))
    np.testing.assert_array_equal(loaded.predict([{"image": picture}]), probabilities)


def test_the_weights_are_proved_when_the_model_is_loaded(bundle: Path, weights: Path, tmp_path: Path) -> None:
    import torch

    state = torch.load(weights, weights_only=True)
    CheckpointFolder(weights.parent).save("model.pt", state, {"epoch": 1})
    client = Client(tmp_path)
    LoggedModel(bundle, weights.parent, training_config(bundle)).log(client, "run")  # type: ignore[arg-type]
    stored = tmp_path / "stored" / "data" / "bundle" / "models"
    content = bytearray((stored / "model.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (stored / "model.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="differs from its digest"):
        mlflow.pyfunc.load_model(str(tmp_path / "stored"))


def test_a_volume_bundle_takes_its_own_example(repository: Path, tmp_path: Path) -> None:
    with on_trial(repository / "bundles" / "brain_mri_classification") as trial:
        trial.make_weights()
        model = LoggedModel(trial.folder, trial.folder / "models", training_config(trial.folder))
        assert model.log(Client(tmp_path), "run") == "m-1"  # type: ignore[arg-type]
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "stored"))
    assert loaded.predict(loaded.input_example).iloc[0, 1:].sum() == pytest.approx(1)


def test_what_training_overrode_is_what_inference_does() -> None:
    inference = {
        "preprocessing": [{"window": "@window"}, {"size": "@spatial_size"}], "window": None, "task": "$x",
        "spatial_size": "$f(@image_size)", "image_size": "$@model_info.image_size",
        "in_channels": "$1 if @color else 3", "color": "grey", "batch_size": 32,
    }  # fmt: skip
    training = {
        **inference,
        "window": [40, 400],
        "image_size": 64,
        "batch_size": 8,
        "color": "rgb",
        "task": "multilabel",
    }
    assert inference_settings(training, inference) == {"window": [40, 400], "image_size": 64, "color": "rgb"}
    training["preprocessing"] = [*inference["preprocessing"], {"shift": "@shift"}]
    training |= {"shift": 3, "network_def": {"_target_": "torch.nn.Linear"}}
    found = inference_settings(training, inference, foreign_network=True)
    assert found["preprocessing"] == training["preprocessing"]
    assert (found["shift"], found["network_def"]) == (3, {"_target_": "torch.nn.Linear"})


def test_requirements_are_versions_that_pip_finds() -> None:
    found = {Requirement(line).name: str(Requirement(line).specifier) for line in requirements()}
    assert {"medmamba_monai", "torch", "monai", "numpy", "pydicom", "mlflow"} <= set(found)
    assert all(pin.startswith("==") and "+" not in pin for pin in found.values())


@pytest.mark.parametrize("down", ["get_run", "create_logged_model", "log_model_artifacts"])
def test_a_store_that_is_down_gets_no_half_model(bundle: Path, weights: Path, tmp_path: Path, down: str) -> None:
    client = Client(tmp_path, down=(down,))
    assert LoggedModel(bundle, weights.parent, training_config(bundle)).log(client, "run") is None  # type: ignore[arg-type]
    assert client.calls.get("finalize_logged_model", ("m-1", "FAILED")) == ("m-1", "FAILED")
    assert "log_outputs" not in client.calls


def test_failures_are_warnings(
    bundle: Path, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LoggedModel(bundle, weights.parent, training_config(bundle))

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(mlflow.pyfunc, "save_model", fail)
    client = Client(tmp_path)
    assert model.log(client, "run") is None  # type: ignore[arg-type]
    assert client.calls["finalize_logged_model"] == ("m-1", "FAILED")
    (weights.parent / "model.json").unlink()
    assert model.log(client, "run") is None  # type: ignore[arg-type]
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert any("planted" in message for message in told)
    assert any("model.json" in message for message in told)


def test_what_is_missing_is_named(bundle: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights"):
        LoggedModel(bundle, tmp_path, {}).write_bundle(tmp_path / "a")
    with pytest.raises(ConfigError, match="inference.json"):
        LoggedModel(tmp_path, weights.parent, {}).write_bundle(tmp_path / "b")


def test_a_uv_project_nearby_is_no_part_of_the_model(
    bundle: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uv.lock", "pyproject.toml"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_UV_AUTO_DETECT", "true")
    LoggedModel(bundle, weights.parent, training_config(bundle)).log(Client(tmp_path), "run")  # type: ignore[arg-type]
    assert not (tmp_path / "stored" / "uv.lock").exists()
    assert logged_model.os.environ["MLFLOW_UV_AUTO_DETECT"] == "true"
