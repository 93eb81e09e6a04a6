"""MONAI's own handlers are taken off wherever they stand, and nothing else is."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

from medmamba_monai.handlers.mlflow_stock import detach_stock


def test_all_of_them_and_nothing_else(store: str) -> None:
    engine = Engine(lambda engine, batch: None)
    stock = MLFlowHandler(tracking_uri=store, iteration_log=2, epoch_log=True)
    calls: list[Any] = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: calls.append("ours"))
    stock.attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED(every=2), lambda engine: calls.append("every second"))
    assert detach_stock(engine) == [stock]
    assert detach_stock(engine) == []
    engine.run([0, 1], max_epochs=1)
    assert calls == ["every second", "ours"]
    assert stock.cur_run is None


def test_while_their_event_is_handled(store: str) -> None:
    """MONAI attaches them before the tracker runs at the start."""
    engine = Engine(lambda engine, batch: None)
    stock = MLFlowHandler(tracking_uri=store)
    engine.add_event_handler(Events.STARTED, lambda engine: detach_stock(engine))
    stock.attach(engine)
    engine.run([0], max_epochs=1)
    assert stock.cur_run is None
