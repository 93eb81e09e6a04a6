"""Guards against NaN and Inf in training: the error, the files to name, and statistics that can be undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from medmamba_monai.errors import MedMambaError

__all__ = ["BufferSnapshot", "NumericsError", "all_ranks_agree", "batch_files"]


class NumericsError(MedMambaError, ArithmeticError):
    """The loss or its gradient was not finite several iterations in a row.

    Example:
        >>> str(NumericsError("loss is nan", where="epoch 1, iteration 7"))
        'epoch 1, iteration 7: loss is nan'
    """


class BufferSnapshot:
    """Copies a network's buffers before a step, so that a refused step leaves no NaN in them.

    The forward pass itself updates batch norm's statistics; skipping the optimiser alone keeps the damage.

    Args:
        network: the network whose buffers are kept; its buffers must not be replaced by others later.

    Example:
        >>> norm = torch.nn.BatchNorm1d(1)
        >>> snapshot = BufferSnapshot(norm)
        >>> snapshot.take()
        >>> _ = norm(torch.tensor([[float("nan")], [1.0]]))
        >>> snapshot.restore()
        >>> norm.running_mean
        tensor([0.])
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self._buffers = list(network.buffers())
        self._copies = [torch.empty_like(buffer) for buffer in self._buffers]

    @torch.no_grad()
    def take(self) -> None:
        """Remember the present values."""
        for copy, buffer in zip(self._copies, self._buffers, strict=True):
            copy.copy_(buffer)

    @torch.no_grad()
    def restore(self) -> None:
        """Write the remembered values back, in place."""
        for copy, buffer in zip(self._copies, self._buffers, strict=True):
            buffer.copy_(copy)


def all_ranks_agree(finite: bool, device: torch.device) -> bool:
    """Whether every process found its numbers finite; all must skip a step together or their weights part.

    Args:
        finite: this process's finding.
        device: where the collective's tensor lives (NCCL needs its own device).
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return finite
    flag = torch.tensor(int(finite), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag.item())


def batch_files(batch: Any, file_key: str = "file") -> list[str]:
    """Names of the files a batch was read from, for messages; empty when the batch does not carry them.

    Args:
        batch: a collated dictionary or a list of item dictionaries.
        file_key: the key under which the datalist gives each item's file; else the image's metadata are
            asked.

    Example:
        >>> batch_files({"file": ["a.png", "b.png"]})
        ['a.png', 'b.png']
    """
    if isinstance(batch, Mapping):
        names = batch.get(file_key)
        if names is None:
            meta = getattr(batch.get("image"), "meta", {})
            names = meta.get("filename_or_obj", [])
        return [names] if isinstance(names, str) else [str(name) for name in names]
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return [name for item in batch for name in batch_files(item, file_key)]
    return []
