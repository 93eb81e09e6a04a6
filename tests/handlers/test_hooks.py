"""What the handlers share: order of events, exceptions told once and never swallowed, conversions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import StatsHandler
from torch import nn

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers.hooks import (
    any_rank,
    as_flag,
    batch_loss,
    is_rank_zero,
    on_exception,
    register_resumable,
    resumables,
    run_first,
    run_last,
    scalar,
    unwrapped,
)


def engine_failing_with(error: BaseException) -> Engine:
    def step(engine: Engine, batch: Any) -> None:
        raise error

    return Engine(step)


def test_first_and_last_do_not_depend_on_the_order_of_registration() -> None:
    engine, calls = Engine(lambda engine, batch: None), []
    run_last(engine, Events.COMPLETED, lambda engine: calls.append("last"), order=2)
    run_last(engine, Events.COMPLETED, lambda engine: calls.append("last but one"), order=1)
    engine.add_event_handler(Events.COMPLETED, lambda engine: calls.append("middle"))
    run_first(engine, Events.COMPLETED, lambda engine: calls.append("first"))
    engine.run([0])
    assert calls == ["first", "middle", "last but one", "last"]
    engine.run([0])
    assert len(calls) == 8


@pytest.mark.parametrize("error", [ValueError("planted"), KeyboardInterrupt()])
@pytest.mark.parametrize("with_stock_handler", [False, True])
def test_exceptions_are_told_once_to_everyone_and_raised(error: BaseException, with_stock_handler: bool) -> None:
    engine, told = engine_failing_with(error), []
    if with_stock_handler:
        StatsHandler(name="stock").attach(engine)  # raises, so that nothing registered after it is called
    on_exception(engine, lambda engine, error: told.append(("one", error)))
    on_exception(engine, lambda engine, error: told.append(("two", error)))
    with pytest.raises(type(error)):
        engine.run([0, 1])
    assert told == [("one", error), ("two", error)]


def test_resumables_are_kept_by_engine() -> None:
    one, other = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    part: Any = object()
    register_resumable(one, "part", part)
    assert resumables(one) == {"part": part}
    assert resumables(other) == {}


def test_rank_from_the_group_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_rank_zero()
    monkeypatch.setenv("RANK", "1")
    assert not is_rank_zero()
    assert any_rank(True, "cpu")
    assert not any_rank(False, "cpu")


def test_unwrapped_sees_through_compile() -> None:
    class Compiled(nn.Module):  # as torch.compile makes it
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self._orig_mod = network

    inner = nn.Linear(1, 1)
    assert unwrapped(nn.DataParallel(Compiled(inner))) is inner


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (np.float64(0.5), 0.5),
        (np.array(2.0), 2.0),
        (torch.ones(1), 1.0),
        (np.ones(2), None),
        ([1], None),
    ],
)
def test_scalar(value: Any, expected: float | None) -> None:
    assert scalar(value) == expected
    assert type(scalar(value)) in (float, type(None))


def test_batch_loss_of_both_forms() -> None:
    assert batch_loss({"loss": torch.tensor(2.0)}) == 2.0
    assert batch_loss([{"loss": 3.0}, {"loss": 3.0}]) == 3.0
    for nothing in (None, [], {"pred": 1}, "loss", 3):
        assert batch_loss(nothing) is None


def test_flags_of_configs_and_command_lines() -> None:
    assert [as_flag(value, "x") for value in (True, "true", "True")] == [True] * 3
    assert [as_flag(value, "x") for value in (False, "false", "False", None)] == [False] * 4
    with pytest.raises(ConfigError, match="mlflow='ye' is neither"):
        as_flag("ye", "mlflow")
