"""Weights of the released MedMamba code to ours and back, strictly by name. Imports checkpoints.py and medmamba.py.

Only names and shapes are known from the released network (see docs/network.md); nothing of its code is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from torch import Tensor

from ..errors import CheckpointError
from .checkpoints import load_strictly, load_weights
from .medmamba import MedMamba

__all__ = ["convert_names", "from_released_state_dict", "is_released", "to_released_state_dict"]

_CONV_BRANCH = {"0": "norm1", "1": "conv1", "2": "norm2", "4": "conv2", "5": "norm3", "7": "conv3"}
_MIXER = {
    "x_proj_weight": "x_proj",
    "dt_projs_weight": "dt_weight",
    "dt_projs_bias": "dt_bias",
    "A_logs": "A_log",
    "Ds": "D",
    "in_proj.weight": "in_proj.weight",
    "conv2d.weight": "conv.weight",
    "conv2d.bias": "conv.bias",
    "out_norm.weight": "out_norm.weight",
    "out_norm.bias": "out_norm.bias",
    "out_proj.weight": "out_proj.weight",
}
_SAME = re.compile(r"(patch_embed\.(proj|norm)|head)\.(weight|bias)")
_BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.(ln_1|self_attention|conv33conv33conv11)\.(.+)")
_MERGE = re.compile(r"layers\.(\d+)\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)")


def is_released(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the released network's names."""
    return any(name.startswith("layers.") for name in state)


def _our_name(name: str) -> str | None:
    if _SAME.fullmatch(name):
        return name
    if merge := _MERGE.fullmatch(name):
        return f"stages.{int(merge[1]) + 1}.merge.{merge[2]}"
    block = _BLOCK.fullmatch(name)
    if block is None:
        return None
    stage, number, part, rest = block.groups()
    prefix = f"stages.{stage}.blocks.{number}"
    if part == "ln_1":
        return f"{prefix}.norm.{rest}"
    if part == "self_attention":
        return f"{prefix}.mixer.{_MIXER[rest]}" if rest in _MIXER else None
    index, _, leaf = rest.partition(".")
    return f"{prefix}.conv_branch.{_CONV_BRANCH[index]}.{leaf}" if index in _CONV_BRANCH else None


def convert_names(state: Mapping[str, Tensor], where: str = "released state dict") -> dict[str, Tensor]:
    """Give a released state dict our names and shapes.

    Raises:
        CheckpointError: naming every key that the released network does not have.
    """
    names = {name: _our_name(name) for name in state}
    unknown = [name for name, ours in names.items() if ours is None]
    if unknown:
        raise CheckpointError(f"unknown keys: {', '.join(unknown)}", where=where)
    converted = {ours: state[name] for name, ours in names.items() if ours is not None}
    for name, tensor in converted.items():
        if name.endswith((".mixer.A_log", ".mixer.D")):
            bias = converted.get(name.rsplit(".", 1)[0] + ".dt_bias")
            if bias is not None:
                converted[name] = tensor.reshape(bias.shape[0], -1, *tensor.shape[1:])
    return converted


def _sizes(state: Mapping[str, Tensor], where: str) -> dict[str, object]:
    """Read the constructor's arguments from the tensors of a state dict with our names."""
    blocks = {(int(m[1]), int(m[2])) for name in state if (m := re.match(r"stages\.(\d+)\.blocks\.(\d+)\.", name))}
    stages = 1 + max((stage for stage, _ in blocks), default=-1)
    depths = [1 + max((b for s, b in blocks if s == stage), default=-1) for stage in range(stages)]
    needed = ["patch_embed.proj.weight"]
    needed += [f"stages.{stage}.blocks.0.norm.weight" for stage in range(stages)]
    needed += ["stages.0.blocks.0.mixer.A_log"]
    missing = [name for name in needed if name not in state]
    if missing or stages != 4:
        raise CheckpointError(
            f"sizes cannot be read: {stages} stages, missing (our names) {', '.join(missing) or 'nothing'}",
            where=where,
        )
    stem = state["patch_embed.proj.weight"]
    return {
        "spatial_dims": stem.dim() - 2,
        "in_channels": stem.shape[1],
        "num_classes": state["head.weight"].shape[0] if "head.weight" in state else 0,
        "depths": depths,
        "dims": [2 * state[f"stages.{stage}.blocks.0.norm.weight"].shape[0] for stage in range(stages)],
        "d_state": state["stages.0.blocks.0.mixer.A_log"].shape[-1],
    }


def from_released_state_dict(source: Mapping[str, Tensor] | str | os.PathLike[str], **options: object) -> MedMamba:
    """Build a network from weights of the released code.

    All sizes are read from the tensors. Odd maps are cropped, as the released network does.

    Args:
        source: the state dict, or a file for :func:`~.checkpoints.load_weights`.
        options: further arguments of :class:`MedMamba`, such as ``scan_backend`` or ``drop_path_rate``.

    Returns:
        The network, in training mode as every new module.

    Raises:
        CheckpointError: naming unknown, missing or misshapen keys.
    """
    if isinstance(source, Mapping):
        state, where = source, "released state dict"
    else:
        state, where = load_weights(source), str(source)
    ours = convert_names(state, where)
    arguments = {**_sizes(ours, where), "odd_size": "crop", **options}
    network = MedMamba(**arguments)  # type: ignore[arg-type]
    load_strictly(network, ours, where)
    return network


def to_released_state_dict(network: MedMamba) -> dict[str, Tensor]:
    """Return the weights under the released network's names and shapes; the inverse of the converter.

    Raises:
        CheckpointError: when the network is not one the released code could hold (3-D, another scan).
    """
    if network.spatial_dims != 2 or network.config["scan"] != "cross":
        raise CheckpointError(
            f"spatial_dims={network.spatial_dims}, scan={network.config['scan']!r}: the released code is 2-D, cross"
        )
    mixer = {ours: released for released, ours in _MIXER.items()}
    branch = {ours: released for released, ours in _CONV_BRANCH.items()}
    result = {}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        if parts[0] == "stages" and parts[2] == "merge":
            name = f"layers.{int(parts[1]) - 1}.downsample.{'.'.join(parts[3:])}"
        elif parts[0] == "stages":
            prefix, part, rest = f"layers.{parts[1]}.blocks.{parts[3]}", parts[4], ".".join(parts[5:])
            if part == "norm":
                name = f"{prefix}.ln_1.{rest}"
            elif part == "mixer":
                name = f"{prefix}.self_attention.{mixer[rest]}"
                tensor = tensor.flatten(0, 1) if rest in ("A_log", "D") else tensor
            else:
                name = f"{prefix}.conv33conv33conv11.{branch[parts[5]]}.{parts[6]}"
        result[name] = tensor
    return result
