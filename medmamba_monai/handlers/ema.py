"""An exponential moving average of the weights, validated and kept as the model. Used by configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers.hooks import as_flag, register_resumable, unwrapped

__all__ = ["ExponentialMovingAverage"]

MOMENTUM_NAME = "ema_momentum"


class ExponentialMovingAverage:
    """Averages the weights after every iteration: average = d * average + (1 - d) * weights.

    d rises as (1 + n) / (10 + n) with the iteration n up to ``decay``, so that short trainings do not average
    the initial weights in. Batch norm's statistics are the training network's. The evaluator gets the average
    as its network, and ``CheckpointHandler`` keeps it as ``model.pt``. Attached to the trainer.

    Args:
        network: the network in training; it may be wrapped in DistributedDataParallel.
        evaluator: validates the average from the start of training on.
        decay: largest d, in (0, 1).
        enabled: False makes this handler do nothing.

    Raises:
        ConfigError: ``decay`` outside (0, 1).

    Example:
        >>> ExponentialMovingAverage(nn.Linear(1, 1), decay=1.0)
        Traceback (most recent call last):
            ...
        medmamba_monai.errors.ConfigError: ExponentialMovingAverage.decay: 1.0 is not between 0 and 1
    """

    def __init__(
        self,
        network: nn.Module,
        evaluator: Engine | None = None,
        decay: float = 0.999,
        enabled: bool | str = True,
    ) -> None:
        if not 0.0 < decay < 1.0:
            raise ConfigError(f"{decay} is not between 0 and 1", where="ExponentialMovingAverage.decay")
        self.network = network
        self.evaluator = evaluator
        self.decay = float(decay)
        self.enabled = as_flag(enabled, "ExponentialMovingAverage.enabled")
        self._handler: EMAHandler | None = None

    @property
    def average(self) -> nn.Module:
        """The averaged network; made on first use, from the weights the network has then."""
        if self._handler is None:
            self._handler = EMAHandler(unwrapped(self.network), momentum=1.0 - self.decay)
        average: nn.Module = self._handler.ema_model
        return average

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if not self.enabled:
            return
        register_resumable(engine, "ema", self)
        engine.add_event_handler(Events.STARTED, self._started)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights."""
        return dict(self.average.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from averaged weights."""
        with torch.no_grad():
            self.average.load_state_dict(dict(state))

    def _started(self, engine: Engine) -> None:
        average = self.average
        if self.evaluator is not None:
            self.evaluator.network = average
        if not engine.has_event_handler(self._set_momentum, Events.ITERATION_COMPLETED):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._set_momentum)
            self._handler.attach(engine, name=MOMENTUM_NAME, warn_if_exists=False)  # type: ignore[union-attr]

    def _set_momentum(self, engine: Engine) -> None:
        # A function of the iteration alone: nothing to save, and exact after a resume.
        n = engine.state.iteration
        setattr(engine.state, MOMENTUM_NAME, 1.0 - min(self.decay, (1.0 + n) / (10.0 + n)))
