"""Which parameters weight decay may shrink. Used by configs for their optimisers."""

from __future__ import annotations

from typing import Any

from torch import nn

from medmamba_monai.errors import ConfigError

__all__ = ["parameter_groups"]

# The scan's state matrix and skip weights have scales of their own: logarithms of rates, gains near one.
UNDECAYED_NAMES = frozenset({"A_log", "A_logs", "D", "Ds"})


def parameter_groups(network: nn.Module, weight_decay: float = 0.05) -> list[dict[str, Any]]:
    """Two optimiser groups: matrices with weight decay; A_log, D, norms, biases and all vectors without.

    Args:
        network: trainable parameters are taken, each exactly once even where modules share it.
        weight_decay: decay of the first group.

    Returns:
        ``[{"params": [...], "weight_decay": weight_decay}, {"params": [...], "weight_decay": 0.0}]``; an
        empty group is left out.

    Raises:
        ConfigError: the network has nothing to train, or the decay is negative.

    Example:
        >>> [len(group["params"]) for group in parameter_groups(nn.Linear(3, 2), 0.1)]
        [1, 1]
    """
    if weight_decay < 0:
        raise ConfigError(f"weight_decay={weight_decay} is negative")
    decayed, undecayed = [], []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or name.rsplit(".", 1)[-1] in UNDECAYED_NAMES:
            undecayed.append(parameter)
        else:
            decayed.append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ConfigError("the network has no parameter that requires a gradient", remedy="unfreeze some of it")
    return groups
