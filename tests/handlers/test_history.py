"""history.csv against what the engines did; after interruptions it is what an undisturbed training writes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ignite.engine import Events

from medmamba_monai.errors import DataError
from medmamba_monai.handlers import CheckpointHandler, History, ReproducibleEpochs, read_history, resume_training


def complete(folder: Path) -> Any:
    def handlers(network: Any, evaluator: Any, scheduler: Any) -> list[Any]:
        return [
            History(folder, evaluator),  # first, to prove that the order is free
            CheckpointHandler(folder / "models", scheduler, evaluator),
            ReproducibleEpochs(seed=5),
        ]

    return handlers


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def run_until(training: Any, event: Any) -> None:
    def stop(engine: Any) -> None:
        raise Interrupted

    training.trainer.add_event_handler(event, stop)
    with pytest.raises(Interrupted):
        training.trainer.run()


def without_seconds(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key != "seconds"} for row in read_history(folder / "history.csv")
    ]


def test_rows_are_what_happened(build: Any, tmp_path: Path) -> None:
    training = build(lambda network, evaluator, scheduler: [History(tmp_path, evaluator)], epochs=3)
    rates, scores = [], []
    training.trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda engine: rates.append(engine.optimizer.param_groups[0]["lr"])
    )
    training.evaluator.add_event_handler(
        Events.COMPLETED, lambda evaluator: scores.append(evaluator.state.metrics["val_auc"])
    )
    training.trainer.run()
    with (tmp_path / "history.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header == ["epoch", "train_loss", "learning_rate", "seconds", "val_auc"]
    rows = read_history(tmp_path / "history.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    means = np.array(training.losses).reshape(3, 3).mean(axis=1)
    np.testing.assert_allclose([row["train_loss"] for row in rows], means, rtol=1e-7)
    np.testing.assert_allclose([row["learning_rate"] for row in rows], rates[2::3], rtol=1e-7)
    np.testing.assert_allclose([row["val_auc"] for row in rows], scores, rtol=1e-7)
    assert all((row["seconds"] or 0) > 0 for row in rows)


@pytest.mark.parametrize("event", [Events.ITERATION_COMPLETED(once=8), Events.EPOCH_STARTED(once=3)])
def test_resumed_at_an_epoch_boundary(build: Any, tmp_path: Path, event: Any) -> None:
    build(complete(tmp_path / "whole"), epochs=4).trainer.run()
    run_until(build(complete(tmp_path / "parts"), epochs=4), event)
    second = build(complete(tmp_path / "parts"), epochs=4, init_seed=99)
    resume_training(second.trainer)
    second.trainer.run()
    assert without_seconds(tmp_path / "parts") == without_seconds(tmp_path / "whole")


def test_resumed_within_an_epoch(build: Any, tmp_path: Path) -> None:
    build(complete(tmp_path / "whole"), epochs=3).trainer.run()
    first = build(complete(tmp_path / "parts"), epochs=3)
    first.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=5), lambda engine: engine.terminate())
    first.trainer.run()
    assert len(without_seconds(tmp_path / "parts")) == 1
    second = build(complete(tmp_path / "parts"), epochs=3, init_seed=99)
    resume_training(second.trainer)
    second.trainer.run()
    assert without_seconds(tmp_path / "parts") == without_seconds(tmp_path / "whole")


def test_an_interrupted_validation_is_made_up_for(build: Any, tmp_path: Path) -> None:
    """As TerminateOnSignal does it: the validation stops without a score, the row is there, the state is pending."""
    build(complete(tmp_path / "whole"), epochs=3).trainer.run()
    first = build(complete(tmp_path / "parts"), epochs=3)

    def leave(evaluator: Any) -> None:
        if first.trainer.state.epoch == 2:
            evaluator.terminate(skip_completed=True)
            first.trainer.terminate()

    first.evaluator.add_event_handler(Events.ITERATION_COMPLETED, leave)
    first.trainer.run()
    assert (
        "val_auc" not in without_seconds(tmp_path / "parts")[1]
        or without_seconds(tmp_path / "parts")[1]["val_auc"] is None
    )
    second = build(complete(tmp_path / "parts"), epochs=3, init_seed=99)
    resume_training(second.trainer)
    second.trainer.run()
    assert without_seconds(tmp_path / "parts") == without_seconds(tmp_path / "whole")


def test_a_new_training_begins_anew_and_only_rank_zero_writes(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(complete(tmp_path), epochs=3).trainer.run()
    build(complete(tmp_path), epochs=1, init_seed=7).trainer.run()
    assert len(read_history(tmp_path / "history.csv")) == 1
    monkeypatch.setenv("RANK", "1")
    build(complete(tmp_path / "other"), epochs=1).trainer.run()
    assert not (tmp_path / "other" / "history.csv").exists()


def test_epochs_without_validation_have_empty_cells(build: Any, tmp_path: Path) -> None:
    training = build(complete(tmp_path), epochs=2, validate=False)
    training.trainer.add_event_handler(
        Events.EPOCH_COMPLETED(once=2), lambda engine: training.evaluator.run(engine.state.epoch)
    )
    training.trainer.run()
    assert [row["val_auc"] is None for row in read_history(tmp_path / "history.csv")] == [True, False]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n", "no table of epochs"),
        ("epoch,train_loss\n1,low\n", "line 2"),
        ("epoch,train_loss\n1,0.5\n,0.4\n", "line 3: no epoch"),
    ],
)
def test_a_file_that_is_no_history_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(DataError, match=told):
        read_history(tmp_path / "history.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_history(tmp_path / "absent.csv")
