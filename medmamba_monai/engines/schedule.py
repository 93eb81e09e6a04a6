"""The learning-rate schedule, stepped once an iteration. Used by configs."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medmamba_monai.errors import ConfigError

__all__ = ["warmup_cosine"]


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, min_factor: float = 0.01) -> LambdaLR:
    """Linear warm-up from lr/warmup_steps to lr, then half a cosine down to ``min_factor`` times lr.

    The scheduler's saved state holds only its step count, so a resumed run may have another ``total_steps``.

    Args:
        optimizer: each group's present learning rate is the peak.
        total_steps: iterations of the whole training; later steps stay at the minimum.
        warmup_steps: iterations of the warm-up; at most ``total_steps``.
        min_factor: last learning rate over the peak, in [0, 1].

    Raises:
        ConfigError: the numbers make no sense.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> schedule = warmup_cosine(optimizer, total_steps=4, warmup_steps=2, min_factor=0.0)
        >>> rates = []
        >>> for _ in range(5):
        ...     rates.append(round(schedule.get_last_lr()[0], 3))
        ...     optimizer.step(); schedule.step()
        >>> rates
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if total_steps < 1 or not 0 <= warmup_steps <= total_steps:
        raise ConfigError(
            f"total_steps={total_steps} and warmup_steps={warmup_steps} do not fit",
            remedy="total_steps must be at least 1 and warmup_steps between 0 and total_steps",
        )
    if not 0.0 <= min_factor <= 1.0:
        raise ConfigError(f"min_factor={min_factor} is not between 0 and 1")

    # A closure, not an object: LambdaLR would save an object's numbers and force them on the resumed run.
    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return min_factor + (1.0 - min_factor) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)
