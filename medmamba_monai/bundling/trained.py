"""Weights that a bundle is released with: proved to fit, described in the metadata and on the model card."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from medmamba_monai.bundling.card import NO_FIGURES, NO_WEIGHTS, rewrite_card
from medmamba_monai.bundling.layout import json_text
from medmamba_monai.bundling.merge import read_json
from medmamba_monai.bundling.source import METADATA, sha256_of
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.networks.model_info import FILE_NAME, ModelInfo

__all__ = ["GENERATED", "MODEL", "add_weights", "check_weights", "describe", "generated", "measured"]

MODEL = "models/model.pt"
GENERATED = "generated"
"""Entry of model.json's ``extra`` that marks weights made for a test: they are never released."""

NOT_YET = "no trained weights"
"""What the changelogs of bundles without weights say."""


def generated(info: ModelInfo) -> bool:
    """Whether weights are random ones that were made for a test."""
    return bool(info.extra.get(GENERATED))


def add_weights(folder: Path, weights: Path) -> ModelInfo:
    """Copy trained weights, their description and their calibration into a bundle, once they are proved to fit.

    Args:
        folder: the bundle, whose configs are those of the training.
        weights: model.pt of a training, with model.json beside it; calibration.json goes along where there is one.

    Raises:
        CheckpointError: something is missing, damaged, not trained or made for something else; so is a calibration
            that was fitted with other weights.
    """
    info = ModelInfo.load(weights.parent)
    if generated(info):
        raise CheckpointError("these weights are random, made for a test", where=str(weights), remedy="train first")
    (folder / MODEL).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / MODEL)
    shutil.copyfile(weights.parent / FILE_NAME, (folder / MODEL).with_name(FILE_NAME))
    for part in _proved_calibration(weights, info):
        shutil.copyfile(part, (folder / MODEL).with_name(part.name))
    check_weights(folder)
    return info


def _proved_calibration(weights: Path, info: ModelInfo) -> list[Path]:
    """The files of the calibration beside weights; none where there is none."""
    from medmamba_monai.bundling.calibration import FILE_NAME, proved_calibration

    file = weights.with_name(FILE_NAME)
    return proved_calibration(file, sha256_of(weights), info.class_names, info.task) if file.is_file() else []


def check_weights(folder: Path) -> None:
    """Prove that a bundle's models/model.pt is what its configs and model.json say, and its calibration theirs.

    Raises:
        CheckpointError: it holds more than a plain state dict, does not fit the network, is not finite, or was
            trained with other preprocessing; or calibration.json is unreadable, incomplete or of other weights.
    """
    import torch
    from monai.bundle import ConfigParser

    from medmamba_monai.networks import load_strictly, load_weights

    file = folder / MODEL
    state = load_weights(file)
    if set(torch.load(file, map_location="cpu", weights_only=True, mmap=True)) != set(state):
        raise CheckpointError("it wraps the state dict", where=str(file), remedy="save network.state_dict() alone")
    bad = next((name for name, value in state.items() if not torch.isfinite(value).all()), None)
    if bad is not None:
        raise CheckpointError(f"{bad} is not finite", where=str(file), remedy="train anew with a lower learning rate")
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser["bundle_root"], parser["device"] = str(folder), "cpu"
    parser["expected"] = {"digest": "$runtime.config_digest()", "channels": "@in_channels"}
    load_strictly(parser.get_parsed_content("network_def"), state, str(file))
    expected = parser.get_parsed_content("expected")
    info = ModelInfo.load(file.parent)
    info.check(channels=expected["channels"], preprocessing_digest=expected["digest"])
    _proved_calibration(file, info)


def measured(metrics: Path, info: ModelInfo) -> dict[str, Any]:
    """Read the scores that an evaluation of the weights wrote.

    Args:
        metrics: metrics.json of the evaluation.
        info: model.json of the weights.

    Returns:
        Scores over all classes by name, and the number of images ``n``; what is undefined is left out.

    Raises:
        ConfigError: there are none, or they were measured on other classes.
    """
    remedy = "run evaluate with these weights, and give its metrics.json with --metrics"
    if not metrics.is_file():
        raise ConfigError("the weights' scores are missing", where=str(metrics), remedy=remedy)
    content = read_json(metrics)
    if "n" not in content:
        raise ConfigError("these are no scores of an evaluation", where=str(metrics), remedy=remedy)
    if content.get("class_names") != info.class_names:
        classes = f"{content.get('class_names')}, the weights are for {info.class_names}"
        raise ConfigError(f"measured on the classes {classes}", where=str(metrics), remedy=remedy)
    return {k: v for k, v in content.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def describe(folder: Path, info: ModelInfo, scores: dict[str, Any], data_source: str | None = None) -> None:
    """State in metadata and model card what the weights are for and how well they did.

    Args:
        folder: the bundle.
        info: model.json of the weights.
        scores: from `measured`.
        data_source: name and address of the data they were trained on; None: those of the metadata.

    Raises:
        ConfigError: the classes are not those of the metadata's data, and no other data are named; or the model
            card is not one of ours.
    """
    file = folder / METADATA
    metadata = read_json(file)
    tensors = metadata["network_data_format"]
    names = {str(index): name for index, name in enumerate(info.class_names)}
    stated = list(tensors["outputs"]["pred"]["channel_def"].values())
    if data_source is None and sorted(stated) != sorted(info.class_names):
        raise ConfigError(
            f"the weights are for the classes {info.class_names}, the metadata's data have {stated}",
            where=str(file),
            remedy="say what they were trained on with --data_source, and its licence with --data_license",
        )
    tensors["inputs"]["image"]["spatial_shape"] = info.image_size
    for part in ("outputs", "post_processed_outputs"):
        tensors[part]["pred"].update(num_channels=len(names), channel_def=names)
    metadata["data_source"] = data_source or metadata["data_source"]
    metadata["label_classes"] = ", ".join(f"{index}: {name}" for index, name in names.items())
    metadata["eval_metrics"] = scores
    version = metadata["version"]
    metadata["changelog"][version] = metadata["changelog"][version].replace(NOT_YET, "trained weights")
    file.write_text(json_text(metadata), encoding="utf-8")
    _write_card(folder, scores, metadata)


def _write_card(folder: Path, scores: dict[str, Any], metadata: dict[str, Any]) -> None:
    rows = [f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in scores.items() if name != "n"]
    table = "\n".join(["| score | value |", "|---|---|", *rows])
    data = f"Trained weights are in `{MODEL}`. Data: {metadata['data_source']}. Classes: {metadata['label_classes']}."
    rewrite_card(
        folder,
        {
            NO_WEIGHTS: f"Trained weights are in `{MODEL}`, see Performance.",
            NO_FIGURES: f"{data}\n\nMeasured by `evaluate` on {scores['n']} test images:\n\n{table}",
        },
    )
