"""The one number an explanation explains: the log-odds of a class. Imports errors only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError, DataError

__all__ = ["as_targets", "log_odds", "probabilities"]

TASKS = ("multiclass", "multilabel")


def log_odds(logits: Tensor, targets: Tensor, task: str = "multiclass") -> Tensor:
    r"""Log-odds of one class for each image, :math:`\log p_c / (1 - p_c)`.

    They grow with the class's probability and never saturate. Of a softmax they are
    :math:`z_c - \log\sum_{j \ne c} e^{z_j}`: the logit :math:`z_c` alone would also rise with evidence that speaks for
    every class at once. Of a sigmoid they are the logit.

    Args:
        logits: (B, classes), before softmax or sigmoid.
        targets: (B,) int64, class of each image.
        task: "multiclass" (softmax) or "multilabel" (sigmoids); with a single class always a sigmoid.

    Returns:
        (B,) scores, differentiable.

    Example:
        >>> log_odds(torch.tensor([[2.0, 0.5]]), torch.tensor([0]))
        tensor([1.5000])
    """
    own = logits.gather(1, targets[:, None])[:, 0]
    if task == "multilabel" or logits.shape[1] == 1:
        return own
    return own - logits.scatter(1, targets[:, None], float("-inf")).logsumexp(1)


def probabilities(logits: Tensor, task: str = "multiclass") -> Tensor:
    """Probabilities (B, classes) of logits: softmax, or sigmoids with task "multilabel" or a single class."""
    return logits.sigmoid() if task == "multilabel" or logits.shape[1] == 1 else logits.softmax(1)


def as_targets(targets: Tensor | Sequence[int] | int | None, logits: Tensor) -> Tensor:
    """The class to explain for each image.

    Args:
        targets: a class for all images, one for each, or None for the class with the highest logit.
        logits: (B, classes) of these images.

    Returns:
        (B,) int64 on the device of ``logits``.

    Raises:
        ConfigError: targets that do not fit the images or the classes.
        DataError: logits that are not finite, so that there is nothing to explain.

    Example:
        >>> as_targets(None, torch.tensor([[0.0, 1.0], [3.0, 2.0]])), as_targets(1, torch.zeros(2, 3))
        (tensor([1, 0]), tensor([1, 1]))
    """
    wrong = (~torch.isfinite(logits).all(1)).nonzero().flatten().tolist()
    if wrong:
        raise DataError(
            f"the network's output is not finite for images {wrong}", remedy="look at the images and the weights"
        )
    count, classes = logits.shape
    if targets is None:
        return logits.argmax(1)
    chosen = torch.as_tensor(targets, device=logits.device)
    if chosen.dtype.is_floating_point or chosen.dtype == torch.bool:
        raise ConfigError(f"targets are {chosen.dtype}", where="targets", remedy="give class numbers")
    chosen = chosen.to(torch.int64)
    if chosen.dim() == 0:
        chosen = chosen.expand(count)
    if chosen.shape != (count,):
        raise ConfigError(f"{tuple(chosen.shape)} targets for {count} images", where="targets", remedy="give one each")
    if bool((chosen < 0).any()) or bool((chosen >= classes).any()):
        raise ConfigError(
            f"targets {sorted(set(chosen.tolist()))} for {classes} classes",
            where="targets",
            remedy=f"use 0 to {classes - 1}",
        )
    return chosen
