"""Ends a training that no longer improves. Used by configs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers.hooks import any_rank, register_resumable
from medmamba_monai.handlers.score import BestScore, key_score

__all__ = ["EarlyStopping"]

logger = logging.getLogger(__name__)


class EarlyStopping:
    """Ends training after ``patience`` validations in a row without a better score; NaN is no improvement.

    Attached to the trainer. Its count is part of the training state, so a resumed run does not start counting
    anew.

    Args:
        evaluator: the validation engine.
        patience: validations without improvement that are tolerated; 0 or None never stops.
        min_improvement: a smaller gain does not count.
        key_metric: which of the evaluator's metrics; None takes its key metric.
        mode: "max" or "min": which scores are better.

    Raises:
        ConfigError: negative patience, or a metric that cannot decide.

    Example:
        >>> EarlyStopping(Engine(lambda engine, batch: None), patience=-1)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        medmamba_monai.errors.ConfigError: EarlyStopping.patience: -1 is negative...
    """

    def __init__(
        self,
        evaluator: Engine,
        patience: int | None = 10,
        min_improvement: float = 0.0,
        key_metric: str | None = None,
        mode: str = "max",
    ) -> None:
        self.patience = int(patience or 0)
        if self.patience < 0:
            raise ConfigError(
                f"{patience} is negative", where="EarlyStopping.patience", remedy="0 turns early stopping off"
            )
        self.evaluator = evaluator
        self.min_improvement = float(min_improvement)
        self.key_metric = key_metric
        self.best = BestScore(mode)
        self.waited = 0

    def attach(self, engine: Engine) -> None:
        """Register with the trainer and the evaluator."""
        if self.patience == 0:
            return
        register_resumable(engine, "early_stopping", self)
        self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, lambda evaluator: self._validated(engine))

    def state_dict(self) -> dict[str, Any]:
        """Count and best score."""
        return {"waited": self.waited, "value": self.best.value, "epoch": self.best.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting."""
        self.waited = int(state["waited"])
        self.best.value, self.best.epoch = float(state["value"]), int(state["epoch"])

    def _validated(self, trainer: Engine) -> None:
        name, score = key_score(self.evaluator, self.key_metric, "EarlyStopping")
        improved = self.best.update(score, int(trainer.state.epoch), self.min_improvement)
        self.waited = 0 if improved else self.waited + 1
        # One process must not stop alone: the others would wait for it in the next gradient exchange.
        if any_rank(self.waited >= self.patience, trainer.state.device):
            logger.info(
                "early stop after epoch %d: no better %s in %d validations; best %.6g in epoch %d",
                trainer.state.epoch, name, self.waited, self.best.value, self.best.epoch,
            )  # fmt: skip
            trainer.terminate()
