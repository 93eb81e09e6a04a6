"""Records a trained bundle with MLflow as a model that predicts from image files, see `served`.

The model holds what inference needs and nothing of the machine it was trained on: the bundle's inference config with
the keys that training overrode, the weights and their description. Files of this package are no part of it.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle.reference_resolver import ReferenceResolver

import medmamba_monai
from medmamba_monai.bundling import served
from medmamba_monai.bundling.layout import json_text
from medmamba_monai.errors import CheckpointError, ConfigError, MedMambaError
from medmamba_monai.handlers.checkpoint import MODEL_NAME
from medmamba_monai.handlers.checkpoint_folder import INDEX_NAME, CheckpointFolder
from medmamba_monai.handlers.files import write_json
from medmamba_monai.handlers.mlflow_client import QuietClient
from medmamba_monai.handlers.mlflow_records import flat_params
from medmamba_monai.networks.model_info import FILE_NAME, ModelInfo

__all__ = ["NAME", "LoggedModel", "inference_settings", "requirements"]

NAME = "model"
CALIBRATION = "calibration.json"

PINNED = ("torch", "monai", "pytorch-ignite", "mlflow", "numpy", "scipy", "pillow", "pydicom", "nibabel")
"""Packages that decide what a prediction is; the rest follows from the requirements of this package."""

DECODERS = ("pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg", "python-gdcm")
"""Packages for compressed DICOM files, named where they were there in training."""

logger = logging.getLogger(__name__)


class LoggedModel:
    """A bundle and its trained weights on their way to MLflow.

    Args:
        bundle_root: folder of the bundle.
        ckpt_dir: folder of the weights, filled by the time of `log`.
        config: the training's config as written, overrides included.
    """

    def __init__(self, bundle_root: str | Path, ckpt_dir: str | Path, config: Mapping[str, Any]) -> None:
        self.bundle_root, self.ckpt_dir = Path(bundle_root), Path(ckpt_dir)
        self.config = dict(config)

    @property
    def files(self) -> list[Path]:
        """What need not be recorded once more where the model is."""
        return [self.ckpt_dir / MODEL_NAME]

    def log(self, client: QuietClient, run_id: str) -> str | None:
        """Record the model as an output of a run; a failure is a warning.

        Args:
            client: of the store.
            run_id: the training's run.

        Returns:
            The model's id, or None where it could not be recorded.
        """
        run = client.call("get_run", run_id)
        if run is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            try:
                info = self.write_bundle(Path(folder, "bundle"))
            except (MedMambaError, OSError) as error:
                logger.warning("the model is not recorded with MLflow: %s", error)
                return None
            model = client.call(
                "create_logged_model", run.info.experiment_id, name=NAME, source_run_id=run_id, params=_params(info)
            )
            if model is None:
                return None
            done = _save(Path(folder), info, run_id, model.model_id)
            done = done and client.call("log_model_artifacts", model.model_id, str(Path(folder, NAME))) is not None
            client.call("finalize_logged_model", model.model_id, "READY" if done else "FAILED")
            if done:
                _link(client, run_id, model.model_id)
        return str(model.model_id) if done else None

    def write_bundle(self, folder: Path) -> ModelInfo:
        """Write the smallest bundle that predicts as the trained one does.

        Args:
            folder: where to; it is made.

        Returns:
            The description of the weights.

        Raises:
            ConfigError: the training's bundle has no inference config.
            CheckpointError: there are no weights, or none that are described.
        """
        configs = self.bundle_root / "configs"
        if not (configs / "inference.json").is_file():
            raise ConfigError("there is no inference.json", where=str(configs), remedy="train from a bundle's configs")
        weights = self.ckpt_dir / MODEL_NAME
        if not weights.is_file():
            raise CheckpointError("there are no weights", where=str(weights))
        info = ModelInfo.load(self.ckpt_dir)
        (folder / "configs").mkdir(parents=True)
        (folder / "models").mkdir()
        config = json.loads((configs / "inference.json").read_text(encoding="utf-8"))
        config |= inference_settings(self.config, config, foreign_network=not info.network)
        (folder / "configs" / "inference.json").write_text(json_text(config), encoding="utf-8")
        shutil.copyfile(configs / "metadata.json", folder / "configs" / "metadata.json")
        shutil.copyfile(weights, folder / "models" / MODEL_NAME)
        for name in (FILE_NAME, CALIBRATION):
            if (self.ckpt_dir / name).is_file():
                shutil.copyfile(self.ckpt_dir / name, folder / "models" / name)
        _copy_digest(self.ckpt_dir, folder / "models")
        return info


def inference_settings(
    training: Mapping[str, Any], inference: Mapping[str, Any], foreign_network: bool = False
) -> dict[str, Any]:
    """What a bundle's inference has to be told so that it prepares images as training did.

    Args:
        training: the config of the training as written, overrides included.
        inference: the bundle's inference config.
        foreign_network: the network is not of this package, so its definition belongs to the settings.

    Returns:
        Top-level keys of the preprocessing that differ, with training's values.

    Example:
        >>> training = {"preprocessing": [{"window": "@window"}], "window": [40, 400], "epochs": 3}
        >>> inference_settings(training, {"preprocessing": [{"window": "@window"}], "window": None})
        {'window': [40, 400]}
    """
    waiting, seen = ["preprocessing", "in_channels"], []
    while waiting:
        key = waiting.pop()
        if key in training and key not in seen:
            seen.append(key)
            waiting += sorted(_references(training[key]))
    if foreign_network:
        seen.append("network_def")
    return {key: training[key] for key in seen if training.get(key) != inference.get(key)}


def requirements() -> list[str]:
    """Packages that a model needs, with the versions it was trained with, as pip takes them.

    Versions are public ones: "2.13.0+cpu" is no version of the package index.
    """
    pinned = [f"medmamba_monai=={_public(medmamba_monai.__version__)}"]
    for name in (*PINNED, *DECODERS):
        try:
            pinned.append(f"{name}=={_public(version(name))}")
        except PackageNotFoundError:
            if name in PINNED:
                pinned.append(name)
    return pinned


def _public(text: str) -> str:
    return text.partition("+")[0]


def _references(value: Any) -> set[str]:
    """Top-level keys that raw config refers to."""
    if isinstance(value, Mapping):
        return {name for item in value.values() for name in _references(item)}
    if isinstance(value, (list, tuple)):
        return {name for item in value for name in _references(item)}
    if not isinstance(value, str):
        return set()
    return {found.split("::")[0] for found in ReferenceResolver.match_refs_pattern(value)}


def _copy_digest(source: Path, target: Path) -> None:
    """Keep the proof of the weights, without what it says of the training's other files."""
    entry = CheckpointFolder(source).index().get(MODEL_NAME)
    if entry is not None:
        write_json(target / INDEX_NAME, {"format": 1, "files": {MODEL_NAME: entry}})


def _params(info: ModelInfo) -> dict[str, str]:
    facts = {"task": info.task, "class_names": info.class_names, "image_size": info.image_size}
    return flat_params({**facts, "channels": info.channels, "network": info.network})


def _save(folder: Path, info: ModelInfo, run_id: str, model_id: str) -> bool:
    """Write ``folder/bundle`` as an MLflow model to ``folder/model``; whether it worked."""
    try:
        _save_model(folder, info, run_id, model_id)
    except Exception as error:  # noqa: BLE001 (whatever MLflow dislikes: the training is over and its weights are safe)
        logger.warning("the model is not recorded with MLflow: %s", error)
        return False
    return True


def _save_model(folder: Path, info: ModelInfo, run_id: str, model_id: str) -> None:
    import mlflow.pyfunc
    import pandas
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    columns = [ColSpec("string", served.PREDICTION), *(ColSpec("double", name) for name in info.class_names)]
    signature = ModelSignature(Schema([ColSpec("string", served.COLUMN)]), Schema(columns))
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it tells what it is about to do
    detecting = os.environ.get("MLFLOW_UV_AUTO_DETECT")
    os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"  # else a uv project in the current folder becomes part of the model
    try:
        mlflow.pyfunc.save_model(
            str(folder / NAME),
            loader_module=served.__name__,
            data_path=str(folder / "bundle"),
            mlflow_model=Model(artifact_path=NAME, run_id=run_id, model_uuid=model_id, model_id=model_id),
            signature=signature,
            input_example=pandas.DataFrame({served.COLUMN: [_example(info)]}),
            pip_requirements=requirements(),
        )
    finally:
        if detecting is None:
            del os.environ["MLFLOW_UV_AUTO_DETECT"]
        else:
            os.environ["MLFLOW_UV_AUTO_DETECT"] = detecting


def _link(client: QuietClient, run_id: str, model_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    client.call("log_outputs", run_id, [LoggedModelOutput(model_id, step=0)])


def _example(info: ModelInfo) -> str:
    """A made-up picture or volume as base64 code, to show what an input looks like."""
    if info.spatial_dims == 3:
        import nibabel

        ramp = np.arange(16**3, dtype=np.uint8).reshape(16, 16, 16)
        content = gzip.compress(nibabel.Nifti1Image(ramp, np.diag([10.0, 10.0, 10.0, 1.0])).to_bytes())
    else:
        from PIL import Image

        stream = io.BytesIO()
        ramp = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8)
        Image.fromarray(ramp if info.channels == 1 else np.stack([ramp] * 3, axis=-1)).save(stream, "PNG")
        content = stream.getvalue()
    return base64.b64encode(content).decode()
