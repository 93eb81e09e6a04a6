"""Averages the probabilities of several views of an image and of several networks. Configs name it; needs MONAI."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_monai.errors import ConfigError

__all__ = ["AveragingInferer", "views_of"]


def views_of(flips: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """List the views that flips lead to, each as the spatial axes it is flipped along; the image as it is comes last.

    Args:
        flips: each flip by the spatial axes that it turns together.

    Example:
        >>> views_of([[0], [1]])
        [(0, 1), (1,), (0,), ()]
        >>> views_of([])
        [()]
    """
    views: dict[tuple[int, ...], None] = {}
    for count in range(len(flips) + 1):
        for chosen in combinations(flips, count):
            turned: set[int] = set()
            for axes in chosen:
                turned ^= set(axes)  # two flips along one axis undo each other
            views[tuple(sorted(turned))] = None
    return list(views)[::-1]


class AveragingInferer(Inferer):
    """Asks all networks about all views and returns logits of the mean probability.

    With several classes to choose from these are logarithms of the mean softmax, with independent ones the logit of the
    mean sigmoid: what makes probabilities of a network's output makes them of these, too. Without flips and members the
    network's output is returned untouched, as MONAI's SimpleInferer does. The network that the engine gives is asked
    last, and of it last the image as it is.

    Args:
        task: "multiclass" or "multilabel".
        flips: each flip by the spatial axes (0: rows) that it turns together; views are all combinations of them.
        members: networks to average with the engine's, on its device and in evaluation.

    Attributes:
        views: views an image has, by the spatial axes flipped.

    Raises:
        ConfigError: an unknown task.

    Example:
        >>> mean = AveragingInferer("multiclass", flips=[[1]])(torch.eye(3)[None, None], lambda x: x[:, 0, 0])
        >>> [round(p, 4) for p in mean.softmax(1)[0].tolist()]
        [0.394, 0.2119, 0.394]
    """

    def __init__(
        self,
        task: str = "multiclass",
        flips: Sequence[Sequence[int]] = (),
        members: Sequence[nn.Module] = (),
    ) -> None:
        if task not in ("multiclass", "multilabel"):
            raise ConfigError(f"task={task!r}", remedy="use multiclass or multilabel")
        self.task, self.views, self.members = task, views_of(flips), list(members)

    @property
    def averages(self) -> bool:
        """Whether there is more than one prediction an image."""
        return len(self.views) > 1 or bool(self.members)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Predict a batch.

        Args:
            inputs: images (B, C, *spatial).
            network: maps them to logits (B, classes).
            args: passed on to every network, as ``kwargs`` are.
            kwargs: see args.

        Returns:
            Logits (B, classes), in float32 where they are averages.
        """
        if not self.averages:
            return network(inputs, *args, **kwargs)
        logits: list[Tensor] = []
        order: list[Callable[..., Any]] = [*self.members, network]  # it matters: see the class
        for asked in order:
            for axes in self.views:
                view = torch.flip(inputs, [2 + axis for axis in axes]) if axes else inputs
                logits.append(asked(view, *args, **kwargs).float())
        return self._mean(torch.stack(logits))

    def _mean(self, logits: Tensor) -> Tensor:
        """Logits (B, C) of the mean probability of (N, B, C), through logarithms, which neither over- nor underflow."""
        if self.task == "multiclass":
            return torch.logsumexp(logits.log_softmax(-1), 0) - math.log(len(logits))
        return torch.logsumexp(F.logsigmoid(logits), 0) - torch.logsumexp(F.logsigmoid(-logits), 0)
