"""Seeds reach every generator."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from monai.utils import get_seed

from medmamba_monai.engines import loader_generator, seed_everything


def draws() -> tuple[float, float, float]:
    return float(torch.rand(1)), float(np.random.rand()), random.random()


def test_all_generators_repeat() -> None:
    seed_everything(5)
    first = draws()
    seed_everything(5)
    assert draws() == first
    assert get_seed() == 5
    seed_everything(6)
    assert draws() != first


def test_any_integer_is_a_seed() -> None:
    assert seed_everything(-1) == 2**32 - 1
    assert seed_everything(2**40 + 3) == 3


def test_loader_generators_differ_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = loader_generator(1).initial_seed()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert loader_generator(1).initial_seed() != alone
    assert loader_generator(-1).initial_seed() > 0
