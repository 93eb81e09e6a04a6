"""Pooled features and logits of a network's forward passes, seen by hooks. Imports torch and the network only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .medmamba import MedMamba

__all__ = ["FeatureTap"]


class FeatureTap:
    """Sees the logits and the pooled features of every forward pass, until closed.

    What comes before MedMamba's head costs nothing. Another network with ``forward_features`` computes them once more;
    its last map (B, D, *spatial) is averaged over space. One without has no features.

    Args:
        network: in evaluation.

    Example:
        >>> network = MedMamba(num_classes=3, depths=(1, 1, 1, 1), dims=(8, 16, 32, 64)).eval()
        >>> tap = FeatureTap(network)
        >>> logits = network(torch.zeros(2, 3, 32, 32))
        >>> [tuple(values.shape) for values in tap.take()]
        [(2, 3), (2, 64)]
        >>> tap.close()
    """

    def __init__(self, network: nn.Module) -> None:
        self._logits: list[Tensor] = []
        self._features: list[Tensor] = []
        self._hooks = [network.register_forward_hook(self._after)]
        self._again = not isinstance(network, MedMamba) and callable(getattr(network, "forward_features", None))
        if isinstance(network, MedMamba):
            self._hooks.append(network.head.register_forward_pre_hook(self._before_head))

    def take(self, last: bool = False) -> tuple[Tensor | None, Tensor | None]:
        """Logits (B, C) and features (B, D) since the last call, the mean where a batch passed several times.

        Args:
            last: take those of the last pass in place of the mean.
        """
        kept = slice(-1 if last else None, None)
        taken = tuple(torch.stack(found[kept]).mean(0) if found else None for found in (self._logits, self._features))
        self._logits, self._features = [], []
        return taken[0], taken[1]

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def _before_head(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._features.append(arguments[0].detach().float())

    def _after(self, network: Any, arguments: tuple[Any, ...], output: Any) -> None:
        self._logits.append(output.detach().float())
        if self._again:
            with torch.no_grad():
                maps = network.forward_features(arguments[0])
            last = maps[-1] if isinstance(maps, list | tuple) else maps
            self._features.append((last.flatten(2).mean(2) if last.dim() > 2 else last).detach().float())
