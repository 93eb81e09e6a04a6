"""Makes everything random a function of (seed, epoch, process), so that a run can be repeated exactly."""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd

from medmamba_monai.errors import ConfigError

__all__ = ["ReproducibleEpochs", "epoch_seed"]

logger = logging.getLogger(__name__)


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """A 32-bit seed, as different for neighbouring epochs and processes as for distant ones.

    Example:
        >>> len({epoch_seed(0, epoch, rank) for epoch in range(100) for rank in range(8)})
        800
    """
    return int(np.random.SeedSequence([seed % 2**32, epoch, rank]).generate_state(1)[0])


class ReproducibleEpochs:
    """Seeds torch, NumPy, Python, MONAI's random transforms and the samplers at the start of every epoch.

    The loader's iterator is made at the start of a run, and again whenever it is exhausted, which happens
    within the next epoch; a sampler draws once more when it is exhausted. Seeding at both moments puts a
    resumed run, which makes its first iterator at another one, on the same path. Worker processes are seeded
    from the loader's.

    Args:
        seed: the run's seed.

    Raises:
        ConfigError: the loader keeps its workers from epoch to epoch, whose random state cannot be restored.

    Example:
        >>> engine = Engine(lambda engine, batch: float(torch.rand(1)))
        >>> ReproducibleEpochs(seed=7).attach(engine)
        >>> engine.run([0], max_epochs=2).output == engine.run([0], max_epochs=2).output
        True
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = int(seed)

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self._check)
        engine.add_event_handler(Events.EPOCH_STARTED, self._reseed)
        engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, self._reseed)

    def _check(self, engine: Engine) -> None:
        loader = _innermost(engine.state.dataloader)
        if getattr(loader, "persistent_workers", False):
            raise ConfigError(
                "workers that live longer than an epoch cannot be seeded anew",
                where="the training loader's persistent_workers",
                remedy="set persistent_workers to false, or leave ReproducibleEpochs out",
            )
        if hasattr(loader, "__len__") and len(loader) != engine.state.epoch_length:
            logger.warning("an epoch is not one pass over the loader: a resumed run will not repeat it exactly")

    def _reseed(self, engine: Engine) -> None:
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        seed = epoch_seed(self.seed, int(engine.state.epoch), rank)
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        loader = _innermost(engine.state.dataloader)
        for part in (loader, getattr(loader, "sampler", None)):
            generator = getattr(part, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(seed)
        sampler = getattr(loader, "sampler", None)
        if sampler is not None and hasattr(sampler, "set_epoch"):
            sampler.set_epoch(int(engine.state.epoch))
        if getattr(loader, "dataset", None) is not None:
            set_rnd(loader.dataset, seed)


def _innermost(loader: Any) -> Any:
    """The data loader inside a wrapper that has one under ``loader``."""
    while hasattr(loader, "loader"):
        loader = loader.loader
    return loader
