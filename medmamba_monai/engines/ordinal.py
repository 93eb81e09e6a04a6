"""A loss for classes with an order, such as grades of a disease. Used by configs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from medmamba_monai.errors import ConfigError

__all__ = ["OrdinalLoss", "squared_earth_mover"]


def squared_earth_mover(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Squared earth mover's distance between the softmax and the true class, for classes in a row.

    The sum over the class boundaries of the squared difference between the two cumulative distributions (Hou,
    Yu, Samaras: Squared Earth Mover's Distance-based Loss for Training Deep Neural Networks, arXiv:1611.05916,
    2016). A certain prediction that is d classes off costs d.

    Args:
        logits: (B, C).
        labels: (B,) class numbers.

    Returns:
        (B,) float32.

    Example:
        >>> squared_earth_mover(torch.tensor([[0.0, 0.0, 100.0]]), torch.tensor([0]))
        tensor([2.])
    """
    predicted = logits.float().softmax(1).cumsum(1)[:, :-1]
    boundaries = torch.arange(logits.shape[1] - 1, device=logits.device)
    true = (labels[:, None] <= boundaries).to(predicted.dtype)
    return (predicted - true).square().sum(1)


class OrdinalLoss(nn.Module):
    """Cross-entropy plus ``distance`` times the squared earth mover's distance.

    Cross-entropy alone takes every wrong class as equally wrong; the distance alone has hardly any gradient
    where the network is sure and wrong.

    Args:
        distance: weight of the distance; 0 leaves cross-entropy.
        weight: (C,) class weights of both terms, means being taken as ``torch.nn.CrossEntropyLoss`` takes them.
        label_smoothing: of the cross-entropy.
        task: "multiclass"; a bundle's config hands it on.

    Raises:
        ConfigError: ``distance`` is negative, or images have several classes, which cannot be grades.

    Example:
        >>> loss = OrdinalLoss()
        >>> near, far = torch.tensor([[0.0, 3.0, 0.0]]), torch.tensor([[0.0, 0.0, 3.0]])
        >>> bool(loss(near, torch.tensor([0])) < loss(far, torch.tensor([0])))
        True
    """

    def __init__(
        self,
        distance: float = 1.0,
        weight: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
        task: str = "multiclass",
    ) -> None:
        super().__init__()
        if task != "multiclass":
            raise ConfigError(
                f"task {task} has no grades: an image may have several classes",
                where="OrdinalLoss",
                remedy="train with task multiclass, or with the loss of another bundle",
            )
        if not distance >= 0:
            raise ConfigError(f"distance={distance} is negative", where="OrdinalLoss", remedy="give 0 or more")
        self.distance = float(distance)
        self.label_smoothing = label_smoothing
        self.weight: torch.Tensor | None
        self.register_buffer("weight", weight)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch: a scalar from logits (B, C) and class numbers (B,)."""
        entropy = F.cross_entropy(logits, labels, weight=self.weight, label_smoothing=self.label_smoothing)
        distances = squared_earth_mover(logits, labels)
        if self.weight is None:
            return entropy + self.distance * distances.mean()
        weights = self.weight[labels]
        return entropy + self.distance * (weights * distances).sum() / weights.sum()
