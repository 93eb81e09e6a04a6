"""SIGTERM and SIGINT: the iteration is finished, the state saved, the process ends with 75 and resumes exactly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Events

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers import (
    PREEMPTED_EXIT_CODE,
    CheckpointHandler,
    Preempted,
    ReproducibleEpochs,
    TerminateOnSignal,
    resume_training,
)
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder
from tests import children


@pytest.fixture(autouse=True)
def _survive() -> Iterator[None]:
    """A handler that is not installed shall fail a test, not end the session, however a shell started it."""

    def fail(number: int, frame: Any) -> None:
        raise AssertionError("the signal was not caught")

    before = signal.signal(signal.SIGTERM, fail), signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


def complete(folder: Path) -> Any:
    def handlers(network: Any, evaluator: Any, scheduler: Any) -> list[Any]:
        return [
            TerminateOnSignal(evaluator),
            CheckpointHandler(folder, scheduler, evaluator),
            ReproducibleEpochs(seed=5),
        ]

    return handlers


def send(engine: Any, event: Any, number: int = signal.SIGTERM) -> None:
    engine.add_event_handler(event, lambda engine: signal.raise_signal(number))


def weights(folder: Path) -> dict[str, Any]:
    state = CheckpointFolder(folder).load("checkpoint.pt")
    return {name: value.tolist() for name, value in state["network"].items()}


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGTERM, 2), (signal.SIGINT, 0)])
def test_resume_within_an_epoch_is_bit_exact(build: Any, tmp_path: Path, number: int, workers: int) -> None:
    whole = build(complete(tmp_path / "whole"), epochs=3, workers=workers)
    whole.trainer.run()
    first = build(complete(tmp_path / "parts"), epochs=3, workers=workers)
    send(first.trainer, Events.ITERATION_STARTED(once=5), number)
    with pytest.raises(Preempted) as caught:
        first.trainer.run()
    assert caught.value.code == PREEMPTED_EXIT_CODE == 75
    assert first.trainer.state.iteration == 5
    assert CheckpointFolder(tmp_path / "parts").load("checkpoint.pt")["iteration"] == 5
    second = build(complete(tmp_path / "parts"), epochs=3, workers=workers, init_seed=9)
    resume_training(second.trainer)
    second.trainer.run()
    assert first.losses + second.losses == whole.losses
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


@pytest.mark.parametrize("moment", ["training", "validation"])
def test_validation_of_the_epoch_is_made_up_for(build: Any, tmp_path: Path, moment: str) -> None:
    whole = build(complete(tmp_path / "whole"), epochs=3)
    whole.trainer.run()
    first = build(complete(tmp_path / "parts"), epochs=3)
    if moment == "training":
        send(first.trainer, Events.ITERATION_COMPLETED(once=3))  # the last of epoch 1
    else:
        send(first.evaluator, Events.ITERATION_STARTED(once=1))
    with pytest.raises(Preempted):
        first.trainer.run()
    state = CheckpointFolder(tmp_path / "parts").load("checkpoint.pt")
    assert (state["iteration"], state["validation_pending"]) == (3, True)
    second = build(complete(tmp_path / "parts"), epochs=3)
    epochs = []
    second.evaluator.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: epochs.append(engine.state.epoch))
    resume_training(second.trainer)
    second.trainer.run()
    assert epochs == [1, 2, 3]
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert second.trainer.state.checkpoint_handler.best == whole.trainer.state.checkpoint_handler.best


def test_in_the_last_epochs_validation_the_training_just_ends(build: Any, tmp_path: Path) -> None:
    training = build(complete(tmp_path), epochs=1)
    send(training.evaluator, Events.ITERATION_STARTED(once=1))
    training.trainer.run()
    assert (tmp_path / "model.pt").exists()


def test_second_signal_acts_at_once(build: Any, tmp_path: Path) -> None:
    training = build(complete(tmp_path), epochs=1)
    send(training.trainer, Events.ITERATION_STARTED(once=1), signal.SIGINT)
    send(training.trainer, Events.ITERATION_STARTED(once=1), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training.trainer.run()
    assert training.losses == []


def test_an_ignored_signal_stays_ignored(build: Any, tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    training = build(complete(tmp_path), epochs=1)
    send(training.trainer, Events.ITERATION_STARTED(once=1), signal.SIGINT)
    training.trainer.run()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert (tmp_path / "model.pt").exists()


def test_handlers_of_the_process_are_put_back(build: Any, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    training = build(complete(tmp_path), epochs=1)
    training.trainer.run()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_process_ends_with_75(build: Any, tmp_path: Path) -> None:
    training = build(complete(tmp_path), epochs=2)
    send(training.trainer, Events.ITERATION_STARTED(once=2))
    assert children.run(training.trainer.run) == 75
    assert CheckpointFolder(tmp_path).load("checkpoint.pt")["iteration"] == 2


def test_without_the_handler_sigterm_saves_nothing(build: Any, tmp_path: Path) -> None:
    """The control."""
    training = build(lambda *_: [CheckpointHandler(tmp_path)], epochs=2, validate=False)
    send(training.trainer, Events.ITERATION_STARTED(once=2))

    def run() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        training.trainer.run()

    assert children.run(run) == -signal.SIGTERM
    assert not (tmp_path / "checkpoint.pt").exists()


def test_other_threads_cannot_catch_signals(build: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training = build(complete(tmp_path), epochs=1)
    thread = threading.Thread(target=training.trainer.run)
    thread.start()
    thread.join()
    assert "not in the main thread" in caplog.text
    assert (tmp_path / "model.pt").exists()


def test_unknown_signal() -> None:
    with pytest.raises(ConfigError, match="'SIGNOTHING' is no signal"):
        TerminateOnSignal(signals=["SIGNOTHING"])
