"""The best validation score so far: undefined scores rank worst, numbers are Python's own."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

from ignite.engine import Engine

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers.hooks import scalar

__all__ = ["BestScore", "key_score"]

logger = logging.getLogger(__name__)


@dataclass
class BestScore:
    """Keeps the best of a series of scores.

    Args:
        mode: "max" where larger is better, "min" where smaller is.
        value: best score; NaN before the first defined one.
        epoch: epoch of the best score; 0 before it.

    Example:
        >>> best = BestScore("max")
        >>> [best.update(score, epoch) for epoch, score in enumerate([float("nan"), 0.5, 0.4, 0.6], start=1)]
        [False, True, False, True]
        >>> best.value, best.epoch
        (0.6, 4)
    """

    mode: str = "max"
    value: float = math.nan
    epoch: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("max", "min"):
            raise ConfigError(f"mode={self.mode!r} is neither 'max' nor 'min'")

    def improves(self, score: float, margin: float = 0.0) -> bool:
        """Whether ``score`` beats the best by more than ``margin``; NaN and infinities never do."""
        if not math.isfinite(score):
            return False
        gain = score - self.value if self.mode == "max" else self.value - score
        return math.isnan(self.value) or gain > margin

    def update(self, score: float, epoch: int, margin: float = 0.0) -> bool:
        """Take the score if it improves; returns whether it did."""
        if not self.improves(score, margin):
            return False
        self.value, self.epoch = score, epoch
        return True


def key_score(evaluator: Engine, key_metric: str | None, user: str) -> tuple[str, float]:
    """Name and value of the score that decides, after an evaluation.

    Args:
        evaluator: the validation engine.
        key_metric: its metric; None takes the engine's key metric.
        user: the handler that asks, for the message.

    Raises:
        ConfigError: the evaluator has no such metric, or it is not a single number.
    """
    name = key_metric or getattr(evaluator.state, "key_metric_name", None)
    metrics: dict[str, Any] = evaluator.state.metrics
    if name is None or name not in metrics:
        raise ConfigError(
            f"the evaluator has no metric {name!r}; it has: {', '.join(metrics) or 'none'}",
            where=f"{user}.key_metric",
            remedy="give the evaluator a key_val_metric or name one of its metrics",
        )
    value = scalar(metrics[name])
    if value is None:
        raise ConfigError(
            f"metric {name!r} is not a single number and cannot decide which network is best",
            where=f"{user}.key_metric",
        )
    if math.isnan(value):
        logger.warning("%s of epoch %d is undefined; it counts as the worst score", name, evaluator.state.epoch)
    return name, value
