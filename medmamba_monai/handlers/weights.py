"""Weights for evaluation and inference: proven, complete, never random. Called from ``initialize``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from medmamba_monai.errors import CheckpointError
from medmamba_monai.handlers.checkpoint import MODEL_NAME
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder
from medmamba_monai.handlers.hooks import unwrapped
from medmamba_monai.handlers.resume import load_network

__all__ = ["load_weights_for_inference"]


def load_weights_for_inference(
    network: nn.Module,
    path: str | Path,
    class_names: Sequence[str] | None = None,
    channels: int | None = None,
    preprocessing_digest: str | None = None,
    task: str | None = None,
) -> Path:
    """Load ``model.pt`` into a network, or fail: predictions of an untrained network look like any others.

    Args:
        network: receives the weights, whose names and shapes must match exactly.
        path: the folder of the weights (``model.pt`` is taken) or a ``.pt`` or ``.safetensors`` file.
        class_names: compared with ``model.json`` beside the weights where given; so are the next three.
        channels: number of image channels.
        preprocessing_digest: digest of the preprocessing the images will go through.
        task: "multiclass" or "multilabel".

    Returns:
        The file that was read.

    Raises:
        CheckpointError: the file is missing, damaged or belongs to another network, or ``model.json`` is
            missing or disagrees with what is expected.

    Example:
        >>> load_weights_for_inference(nn.Linear(1, 1), "no/such/folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        medmamba_monai.errors.CheckpointError: no/such/folder: there are no weights...
    """
    file = Path(path) / MODEL_NAME if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise CheckpointError(
            "there are no weights here, and an untrained network would predict at random",
            where=str(file),
            remedy="train first, or point ckpt_dir to the folder that holds model.pt",
        )
    if (class_names, channels, preprocessing_digest, task) != (None,) * 4:
        from medmamba_monai.networks.model_info import ModelInfo

        names = None if class_names is None else list(class_names)
        ModelInfo.load(file.parent).check(names, channels, preprocessing_digest, task)
    payload = CheckpointFolder(file.parent).load(file.name)
    load_network(unwrapped(network), _network_weights(payload), file)
    return file


def _network_weights(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict itself, or the network's part of a training state."""
    inner = payload.get("network")
    return inner if isinstance(inner, Mapping) else payload
