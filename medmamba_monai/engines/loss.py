"""The losses of the two tasks: cross-entropy, and binary cross-entropy for each of several classes. Used by configs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from medmamba_monai.errors import ConfigError

__all__ = ["MultiLabelLoss", "classification_loss"]


class MultiLabelLoss(nn.BCEWithLogitsLoss):
    """Binary cross-entropy of each class for itself, the mean over classes and images.

    Args:
        pos_weight: (C,) weights of the positive answers; None: all equal.
        label_smoothing: s makes targets of 1 - s / 2 and s / 2 out of 1 and 0.

    Raises:
        ConfigError: ``label_smoothing`` outside [0, 1).

    Example:
        >>> loss = MultiLabelLoss(torch.tensor([1.0, 3.0]))
        >>> round(float(loss(torch.zeros(1, 2), torch.tensor([[1.0, 1.0]]))), 4)
        1.3863
    """

    def __init__(self, pos_weight: torch.Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__(pos_weight=pos_weight)
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing={label_smoothing}", remedy="give a number from 0 to below 1")
        self.label_smoothing = float(label_smoothing)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch: a scalar from logits (B, C) and labels of 0 and 1 (B, C).

        Raises:
            ConfigError: the labels are class numbers or of other classes.
        """
        if target.shape != input.shape:
            raise ConfigError(
                f"labels of shape {tuple(target.shape)} do not fit logits of shape {tuple(input.shape)}",
                where="MultiLabelLoss",
                remedy="task multilabel needs a 0 or 1 for each class, and a network with an output for each",
            )
        target = target.to(input.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(input, target, pos_weight=self.pos_weight)


def classification_loss(
    task: str = "multiclass", weight: torch.Tensor | None = None, label_smoothing: float = 0.0
) -> nn.Module:
    """The loss of a task.

    Args:
        task: "multiclass" or "multilabel".
        weight: weights (C,) of the classes, or of their positive answers where an image may have several.
        label_smoothing: see ``torch.nn.CrossEntropyLoss`` and ``MultiLabelLoss``.

    Raises:
        ConfigError: there is no such task.

    Example:
        >>> type(classification_loss()).__name__, type(classification_loss("multilabel")).__name__
        ('CrossEntropyLoss', 'MultiLabelLoss')
    """
    if task == "multilabel":
        return MultiLabelLoss(weight, label_smoothing)
    if task != "multiclass":
        raise ConfigError(f"task={task!r}", remedy="use multiclass or multilabel")
    return nn.CrossEntropyLoss(weight=weight, label_smoothing=label_smoothing)
