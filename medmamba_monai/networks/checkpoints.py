"""Reading weights from files, safely, and fitting them to a network that differs in head or image channels.

Never unpickles: a .pt file is read with ``weights_only=True``, .safetensors as such. Imports torch and medmamba.py.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .medmamba import MedMamba

__all__ = ["load_pretrained", "load_strictly", "load_weights"]


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict onto the CPU.

    Args:
        path: a .safetensors file, or a file of ``torch.save`` holding a state dict, plain or under the key
            "state_dict" or "model".

    Raises:
        CheckpointError: when the file is missing, damaged, needs unpickling, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            "there is no such weights file", where=str(path), remedy="train first, or correct the path"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "it holds more than tensors, which only unpickling could read; that would run code of its author",
            where=str(path),
            remedy="save its state_dict() alone, with torch.save or safetensors",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"damaged or no weights file ({error})", where=str(path)) from error
    except Exception as error:  # safetensors raises a type of its own, which is not exported
        if type(error).__name__ != "SafetensorError":
            raise
        raise CheckpointError(f"damaged or no weights file ({error})", where=str(path)) from error
    if isinstance(state, dict):
        state = state.get("state_dict", state.get("model", state))
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError("it holds no state dict (names to tensors)", where=str(path))
    return dict(state)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict that must fit exactly.

    Args:
        network: what to load into; untouched when the state does not fit.
        state: names to tensors.
        where: the file, for messages.

    Raises:
        CheckpointError: naming the first missing, unknown or misshapen entries.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
    faults = [f"{kind}: {_listed(names)}" for kind, names in kinds if names]
    if faults:
        raise CheckpointError(
            f"the weights do not fit the network ({'; '.join(faults)})",
            where=where,
            remedy="build the network with the sizes the weights were trained with",
        )
    network.load_state_dict(dict(state))


def load_pretrained(network: MedMamba, path: str | os.PathLike[str]) -> list[str]:
    """Start a network from weights trained for other classes or image channels.

    The head keeps its fresh values when its number of classes differs. Where the image channels differ, the first
    convolution is adapted so that a grey image copied into all channels would give the same map.

    Args:
        network: what to load into.
        path: see :func:`load_weights`; released MedMamba weights are converted.

    Returns:
        What was adapted, a sentence each; empty when everything fitted.

    Raises:
        CheckpointError: when anything else differs.
    """
    from .released import convert_names, is_released

    state = load_weights(path)
    if is_released(state):
        state = convert_names(state)
    own, notes = network.state_dict(), []
    stem = "patch_embed.proj.weight"
    if stem in state and state[stem].dim() == own[stem].dim() and state[stem].shape[1] != own[stem].shape[1]:
        theirs, ours = state[stem].shape[1], own[stem].shape[1]
        grey = state[stem].sum(1, keepdim=True)
        state[stem] = grey.expand(own[stem].shape) / ours
        notes.append(f"first convolution adapted from {theirs} to {ours} image channels")
    theirs_head, ours_head = state.get("head.weight"), own.get("head.weight")
    if (theirs_head is None) != (ours_head is None) or (
        theirs_head is not None and ours_head is not None and theirs_head.shape != ours_head.shape
    ):
        for name in ("head.weight", "head.bias"):
            state.pop(name, None)
            if name in own:
                state[name] = own[name]
        classes = 0 if theirs_head is None else theirs_head.shape[0]
        notes.append(f"head for {classes} classes replaced by a fresh one for {network.num_classes}")
    load_strictly(network, state, str(path))
    return notes
