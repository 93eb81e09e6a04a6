"""Early stopping counts validations, treats NaN as no improvement, and remembers its count."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Engine, Events

from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.handlers import CheckpointHandler, EarlyStopping, resume_training


def run_with(scores: list[float], **options: Any) -> tuple[int, EarlyStopping]:
    """Epochs that are trained when validations give ``scores``."""
    evaluator = Engine(lambda engine, batch: None)
    trainer = Engine(lambda engine, batch: None)
    trainer.state.device = "cpu"
    remaining = iter(scores)
    evaluator.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(auc=next(remaining)))
    handler = EarlyStopping(evaluator, key_metric="auc", **options)
    handler.attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: evaluator.run([0]))
    trainer.run([0], max_epochs=len(scores))
    return trainer.state.epoch, handler


@pytest.mark.parametrize(
    ("scores", "options", "epochs"),
    [
        ([0.5, 0.4, 0.4, 0.6, 0.5], {"patience": 2}, 3),
        ([0.5, 0.4, 0.6, 0.5, 0.7], {"patience": 2}, 5),
        ([0.5, math.nan, math.nan, 0.9], {"patience": 2}, 3),
        ([0.5, 0.52, 0.54, 0.9], {"patience": 2, "min_improvement": 0.1}, 3),
        ([0.5, 0.6, 0.7], {"patience": 2, "mode": "min"}, 3),
        ([0.5, 0.4, 0.3, 0.2], {"patience": 0}, 4),
        ([0.5, 0.4, 0.3, 0.2], {"patience": None}, 4),
    ],
)
def test_stops_after_patience(scores: list[float], options: dict[str, Any], epochs: int) -> None:
    assert run_with(scores, **options)[0] == epochs


def test_count_survives_a_resume(build: Any, folder: Path) -> None:
    def handlers(network: Any, evaluator: Any, scheduler: Any) -> list[Any]:
        return [CheckpointHandler(folder, scheduler, evaluator), EarlyStopping(evaluator, patience=3)]

    def flat(training: Any) -> Any:
        training.evaluator.add_event_handler(
            Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(val_auc=0.5)
        )
        registered = training.evaluator._event_handlers[Events.EPOCH_COMPLETED]
        names = [getattr(handler, "__name__", "") for handler, _, _ in registered]
        registered.insert(names.index("_compare_metrics"), registered.pop())
        return training

    flat(build(handlers, epochs=3)).trainer.run()
    second = flat(build(handlers, epochs=9))
    resume_training(second.trainer)
    second.trainer.run()
    assert second.trainer.state.epoch == 4  # waited 2 of 3 before, 1 after
    with pytest.raises(CheckpointError, match="stopped early after 3 validations without a gain"):
        resume_training(build(handlers, epochs=9).trainer)


def test_negative_patience() -> None:
    with pytest.raises(ConfigError, match="-1 is negative"):
        EarlyStopping(Engine(lambda engine, batch: None), patience=-1)
