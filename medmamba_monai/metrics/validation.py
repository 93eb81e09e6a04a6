"""A validation score for MONAI's engines, computed over the whole set and all processes. Used by configs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric

from medmamba_monai.metrics.tasks import check_score, predictions_of

__all__ = ["ValidationScore", "predictions_and_findings", "predictions_and_labels"]

logger = logging.getLogger(__name__)


def predictions_and_labels(output: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes predictions (B, C) and labels (B) out of an engine's output, a dictionary or a list of them.

    Labels may be class numbers or one-hot.

    Example:
        >>> predictions_and_labels([{"pred": torch.tensor([0.2, 0.8]), "label": 1}])
        (tensor([[0.2000, 0.8000]]), tensor([1]))
    """
    predictions, labels = _stacked(output)
    if labels.ndim > 1:
        labels = labels.flatten(1)
        labels = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(1)
    return predictions, labels.long()


def predictions_and_findings(output: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes predictions (B, C) and labels of 0 and 1 (B, C) out of an engine's output.

    Example:
        >>> predictions_and_findings([{"pred": torch.tensor([0.2, 0.8]), "label": torch.tensor([0.0, 1.0])}])
        (tensor([[0.2000, 0.8000]]), tensor([[0, 1]]))
    """
    predictions, labels = _stacked(output)
    return predictions, labels.long()


def _stacked(output: Any) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(output, Mapping):
        return torch.as_tensor(output["pred"]), torch.as_tensor(output["label"])
    predictions = torch.stack([torch.as_tensor(item["pred"]).flatten() for item in output])
    return predictions, torch.stack([torch.as_tensor(item["label"]).flatten() for item in output])


class ValidationScore(Metric):
    """A metric of a task's report as an Ignite metric: a Python float, NaN where undefined.

    Args:
        name: one of ``score_names(task)``; ``score_mode(name)`` says whether larger or smaller is better.
        softmax: predictions are logits; with task "multilabel" a sigmoid makes probabilities of them.
        output_transform: gives (predictions (B, C), labels (B) or (B, C)) from the engine's output.
        task: "multiclass" or "multilabel".

    Raises:
        ConfigError: a name that the task does not have.

    Example:
        >>> metric = ValidationScore("accuracy")
        >>> metric.update((torch.tensor([[0.9, 0.1], [0.4, 0.6]]), torch.tensor([0, 0])))
        >>> metric.compute()
        0.5
    """

    def __init__(
        self,
        name: str = "balanced_accuracy",
        softmax: bool = False,
        output_transform: Callable[[Any], Any] | None = None,
        task: str = "multiclass",
    ) -> None:
        check_score(name, task)
        self.name = name
        self.task = task
        self.softmax = softmax
        usual = predictions_and_findings if task == "multilabel" else predictions_and_labels
        super().__init__(output_transform=output_transform or usual)

    def reset(self) -> None:
        """Forget all samples."""
        self._predictions: list[Any] = []
        self._labels: list[Any] = []

    def update(self, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Add a batch of predictions (B, C) and labels (B) or (B, C)."""
        predictions = output[0].detach().double()
        if self.softmax:
            predictions = predictions.sigmoid() if self.task == "multilabel" else predictions.softmax(1)
        self._predictions.extend(predictions.cpu().tolist())
        self._labels.extend(output[1].detach().cpu().tolist())

    def compute(self) -> float:
        """The score of all samples of all processes; NaN, with a warning, if a prediction is not finite.

        Raises:
            NotComputableError: there were none.
        """
        labels, predictions = self._labels, self._predictions
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            everyone: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(everyone, (labels, predictions))
            labels = [label for part in everyone for label in part[0]]
            predictions = [prediction for part in everyone for prediction in part[1]]
        if not labels:
            raise NotComputableError(f"{self.name} needs at least one sample")
        values = np.asarray(predictions)
        bad = int((~np.isfinite(values).all(axis=1)).sum())
        if bad:
            logger.warning("%d of %d predictions are not finite: %s is undefined", bad, len(values), self.name)
            return math.nan
        names = [str(index) for index in range(values.shape[1])]
        return predictions_of(self.task)(labels, values, names).score(self.name)
