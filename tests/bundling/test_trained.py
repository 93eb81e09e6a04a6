"""Weights for a release: what cannot be released is refused, what can be is described where people look."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medmamba_monai.bundling.calibration import ARRAYS_NAME, FILE_NAME, stored_calibration
from medmamba_monai.bundling.source import sha256_of
from medmamba_monai.bundling.trained import add_weights, check_weights, describe, generated, measured
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.metrics.calibration import Calibration
from medmamba_monai.networks.model_info import ModelInfo


def change(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def test_weights_are_copied_unchanged_with_their_description(bundle: Path, weights: Path) -> None:
    info = add_weights(bundle, weights)
    assert info.class_names == ["benign", "malignant", "normal"]
    for name in ("model.pt", "model.json"):
        assert (bundle / "models" / name).read_bytes() == (weights.parent / name).read_bytes()
    check_weights(bundle)


def calibrate(weights: Path) -> Path:
    """A calibration of the weights with arrays, as training leaves it beside them."""
    from safetensors.torch import save_file

    names, n = ModelInfo.load(weights.parent).class_names, 60
    labels = np.arange(n) % len(names)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(len(names)), n)
    save_file({"mean": torch.zeros(4), "whitening": torch.eye(4)}, weights.with_name(ARRAYS_NAME))
    ood = {"method": "mahalanobis", "scales": {"mahalanobis": {"median": 2.0, "to_95th_percentile": 1.0}}}
    ood |= {"reference": ARRAYS_NAME, "reference_sha256": sha256_of(weights.with_name(ARRAYS_NAME))}
    content = Calibration.fit(labels, probabilities, names, ood=ood).to_json()
    file = weights.with_name(FILE_NAME)
    file.write_text(json.dumps({"weights_sha256": sha256_of(weights), **content}))
    return file


def test_the_calibration_goes_along_and_can_be_used(bundle: Path, weights: Path) -> None:
    file = calibrate(weights)
    info = add_weights(bundle, weights)
    for name in (FILE_NAME, ARRAYS_NAME):
        assert (bundle / "models" / name).read_bytes() == file.with_name(name).read_bytes()
    found = stored_calibration(str(bundle / "models"), info.class_names, required=True)
    assert found.calibration is not None
    assert found.unusual is not None


def test_without_arrays_the_calibration_goes_alone(bundle: Path, weights: Path) -> None:
    change(calibrate(weights), ood={})
    add_weights(bundle, weights)
    assert (bundle / "models" / FILE_NAME).is_file()
    assert not (bundle / "models" / ARRAYS_NAME).exists()


def test_a_calibration_of_other_weights_is_refused(bundle: Path, weights: Path) -> None:
    file = calibrate(weights)
    change(file, weights_sha256="0" * 64)
    with pytest.raises(CheckpointError, match=r"run.models.calibration\.json: .*other weights.*delete it"):
        add_weights(bundle, weights)
    calibrate(weights)
    change(file, class_names=["c", "b", "a"])
    with pytest.raises(CheckpointError, match="fitted for multiclass"):
        add_weights(bundle, weights)
    calibrate(weights).with_name(ARRAYS_NAME).write_bytes(b"other arrays")
    with pytest.raises(CheckpointError, match=r"calibration\.safetensors"):
        add_weights(bundle, weights)
    assert not (bundle / "models" / FILE_NAME).exists()


def test_generated_weights_are_refused(bundle: Path, generated_weights: Path) -> None:
    assert generated(ModelInfo.load(generated_weights.parent))
    with pytest.raises(CheckpointError, match="random"):
        add_weights(bundle, generated_weights)
    assert not (bundle / "models").exists()


def test_weights_without_a_description_are_refused(bundle: Path, weights: Path) -> None:
    (weights.parent / "model.json").unlink()
    with pytest.raises(CheckpointError, match="model.json"):
        add_weights(bundle, weights)


def _wrapped(state: dict[str, Any]) -> Any:
    return {"state_dict": state, "epoch": 3}


def _short(state: dict[str, Any]) -> Any:
    return dict(list(state.items())[1:])


def _nan(state: dict[str, Any]) -> Any:
    return {**state, "head.bias": torch.full_like(state["head.bias"], float("nan"))}


def _pickled(state: dict[str, Any]) -> Any:
    return {"state_dict": state, "path": Path("x")}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(_wrapped, "wraps"), (_short, "missing"), (_nan, "head.bias is not finite"), (_pickled, "more than tensors")],
)
def test_weights_that_cannot_be_used_are_refused(spoil: Any, reason: str, bundle: Path, weights: Path) -> None:
    torch.save(spoil(torch.load(weights, weights_only=True)), weights)
    with pytest.raises(CheckpointError, match=reason):
        add_weights(bundle, weights)


def test_weights_for_something_else_are_refused(bundle: Path, weights: Path) -> None:
    change(weights.parent / "model.json", preprocessing_digest="0" * 64)
    with pytest.raises(CheckpointError, match="preprocessing"):
        add_weights(bundle, weights)
    change(weights.parent / "model.json", channels=3)
    with pytest.raises(CheckpointError, match="channels"):
        add_weights(bundle, weights)


def test_scores_are_those_of_the_evaluation(weights: Path) -> None:
    info = ModelInfo.load(weights.parent)
    file = weights.parents[1] / "eval" / "metrics.json"
    scores = measured(file, info)
    assert scores["n"] == 4
    assert scores["accuracy"] == 0.75
    assert {"balanced_accuracy", "auc", "f1"} <= set(scores)
    assert "confusion_matrix" not in scores
    change(file, auc=None)
    assert "auc" not in measured(file, info)


def test_scores_of_other_classes_or_none_are_refused(weights: Path) -> None:
    info = ModelInfo.load(weights.parent)
    file = weights.parents[1] / "eval" / "metrics.json"
    change(file, class_names=["a", "b"])
    with pytest.raises(ConfigError, match="'a', 'b'"):
        measured(file, info)
    with pytest.raises(ConfigError, match="--metrics"):
        measured(file.with_name("nothing.json"), info)
    file.write_text('{"class_names": ["benign", "malignant", "normal"]}')
    with pytest.raises(ConfigError, match="no scores"):
        measured(file, info)


def test_metadata_and_card_say_what_was_trained(bundle: Path, weights: Path) -> None:
    info = ModelInfo.load(weights.parent)
    info.image_size, info.class_names = [96, 128], ["malignant", "benign", "normal"]
    describe(bundle, info, {"n": 40, "accuracy": 0.87654, "auc": 0.9})
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    tensors = metadata["network_data_format"]
    assert tensors["inputs"]["image"]["spatial_shape"] == [96, 128]
    for part in ("outputs", "post_processed_outputs"):
        assert tensors[part]["pred"]["channel_def"] == {"0": "malignant", "1": "benign", "2": "normal"}
    assert metadata["label_classes"] == "0: malignant, 1: benign, 2: normal"
    assert metadata["eval_metrics"] == {"n": 40, "accuracy": 0.87654, "auc": 0.9}
    assert "no trained weights" not in json.dumps(metadata["changelog"])
    card = (bundle / "docs" / "README.md").read_text()
    assert "| accuracy | 0.8765 |" in card
    assert "on 40 test images" in card
    assert not re.search(r"without trained weights|No weights are published", card)


def test_every_card_of_the_repository_can_be_written(repository: Path, bundle: Path, weights: Path) -> None:
    info = ModelInfo.load(weights.parent)
    for folder in sorted((repository / "bundles").iterdir()):
        for file in ("docs/README.md", "configs/metadata.json"):
            (bundle / file).write_bytes((folder / file).read_bytes())
        describe(bundle, info, {"n": 1, "accuracy": 1.0}, data_source="our own")
        assert "| accuracy | 1.0000 |" in (bundle / "docs" / "README.md").read_text()
        assert '"trained weights' not in (bundle / "configs" / "metadata.json").read_text()


def test_other_classes_need_other_data_to_be_named(bundle: Path, weights: Path) -> None:
    info = ModelInfo.load(weights.parent)
    info.class_names = ["cyst", "solid"]
    with pytest.raises(ConfigError, match="--data_source"):
        describe(bundle, info, {"n": 4})
    describe(bundle, info, {"n": 4}, data_source="Our clinic, 2024")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["data_source"] == "Our clinic, 2024"
    assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == 2
    assert "Our clinic, 2024" in (bundle / "docs" / "README.md").read_text()
