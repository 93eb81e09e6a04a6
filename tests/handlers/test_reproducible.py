"""Reseeding by epoch: what depends on it, and what it refuses."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.transforms import RandGaussianNoised

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers import ReproducibleEpochs
from medmamba_monai.handlers.reproducible import epoch_seed


def draws(seed: int, epochs: int, loader: Any, disturb: bool = False) -> list[list[Any]]:
    """What an epoch sees: batches and one number of each generator."""
    seen: list[list[Any]] = []

    def step(engine: Engine, batch: Any) -> None:
        image = batch["image"].sum().item()
        seen[-1].append((image, torch.rand(1).item(), float(np.random.rand()), random.random()))

    engine = Engine(step)
    ReproducibleEpochs(seed).attach(engine)
    engine.add_event_handler(Events.EPOCH_STARTED, lambda engine: seen.append([]))
    if disturb:
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: torch.rand(engine.state.epoch * 3))
    engine.run(loader, max_epochs=epochs)
    return seen


def loader(**options: Any) -> DataLoader:
    data = [{"image": torch.full((1, 2), float(index))} for index in range(6)]
    return DataLoader(Dataset(data, RandGaussianNoised("image", prob=1.0)), batch_size=2, **options)


def test_every_epoch_differs_and_repeats() -> None:
    first = draws(3, 3, loader(shuffle=True))
    assert first == draws(3, 3, loader(shuffle=True), disturb=True)
    assert first != draws(4, 3, loader(shuffle=True))
    assert first[0] != first[1] != first[2]


def test_own_generators_are_reseeded_too() -> None:
    generator = torch.Generator().manual_seed(1)
    first = draws(3, 2, loader(shuffle=True, generator=generator))
    generator.manual_seed(2)
    assert draws(3, 2, loader(shuffle=True, generator=generator)) == first


def test_samplers_learn_the_epoch() -> None:
    told = []

    class Sampler(torch.utils.data.SequentialSampler):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)

    draws(0, 2, loader(sampler=Sampler(range(6))))
    assert sorted(set(told)) == [1, 2]


def test_workers_that_persist_are_refused() -> None:
    with pytest.raises(ConfigError, match="persistent_workers"):
        draws(0, 1, loader(num_workers=1, persistent_workers=True))


def test_an_epoch_that_is_not_one_pass_is_told(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(lambda engine, batch: None)
    ReproducibleEpochs(0).attach(engine)
    engine.run(loader(), max_epochs=1, epoch_length=2)
    assert "not one pass over the loader" in caplog.text


def test_seeds_differ_between_epochs_and_processes() -> None:
    assert epoch_seed(-1, 0) == epoch_seed(2**32 - 1, 0)
    assert epoch_seed(0, 1, 0) != epoch_seed(0, 0, 1)
