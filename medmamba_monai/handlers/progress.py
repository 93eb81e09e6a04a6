"""How far the training is: a bar on a terminal, one line an epoch everywhere. Used by configs."""

from __future__ import annotations

import logging
import sys
import time

from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar

from medmamba_monai.handlers.hooks import as_flag, batch_loss, is_rank_zero, run_last, scalar

__all__ = ["Progress"]

ORDER_AMONG_LAST = 30  # after validation and everything that may log

logger = logging.getLogger(__name__)


class Progress:
    """Logs epoch, mean loss, validation scores and seconds; on a terminal a bar shows the iterations.

    Only the process of rank 0 reports. Attached to the trainer.

    Args:
        evaluator: its scalar metrics are reported after each validation.
        enabled: False makes this handler do nothing.

    Example:
        >>> Progress(enabled="false").enabled
        False
    """

    def __init__(self, evaluator: Engine | None = None, enabled: bool | str = True) -> None:
        self.evaluator = evaluator
        self.enabled = as_flag(enabled, "Progress.enabled")
        self._losses: list[float] = []
        self._validated = False
        self._started_at = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with the trainer (and the evaluator)."""
        if not (self.enabled and is_rank_zero()):
            return
        if sys.stderr.isatty():
            bar = ProgressBar(persist=False)
            bar.attach(engine, output_transform=lambda output: {"loss": batch_loss(output) or 0.0})
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        run_last(engine, Events.EPOCH_COMPLETED, self._epoch_completed, ORDER_AMONG_LAST)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self._validation_completed)

    def _epoch_started(self, engine: Engine) -> None:
        self._losses.clear()
        self._validated = False
        self._started_at = time.perf_counter()

    def _iteration_completed(self, engine: Engine) -> None:
        if (loss := batch_loss(engine.state.output)) is not None:
            self._losses.append(loss)

    def _validation_completed(self, evaluator: Engine) -> None:
        self._validated = True

    def _epoch_completed(self, engine: Engine) -> None:
        parts = [f"loss {sum(self._losses) / len(self._losses):.4f}"] if self._losses else []
        if self.evaluator is not None and self._validated:
            scores = {name: scalar(value) for name, value in self.evaluator.state.metrics.items()}
            parts += [f"{name} {value:.4f}" for name, value in scores.items() if value is not None]
        parts.append(f"{time.perf_counter() - self._started_at:.1f} s")
        logger.info("epoch %d of %d: %s", engine.state.epoch, engine.state.max_epochs, ", ".join(parts))
