"""An interrupted and resumed training equals the undisturbed one bit for bit; misuse is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events

from medmamba_monai.engines import train_sampler
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.handlers import (
    CheckpointHandler,
    EarlyStopping,
    ExponentialMovingAverage,
    ReproducibleEpochs,
    resume_training,
)
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder


def complete(folder: Path, **options: Any) -> Any:
    def handlers(network: Any, evaluator: Any, scheduler: Any) -> list[Any]:
        return [
            CheckpointHandler(folder, scheduler, evaluator, class_names=["a", "b"], task="multiclass", **options),
            ReproducibleEpochs(seed=5),
            ExponentialMovingAverage(network, evaluator, decay=0.9),
            EarlyStopping(evaluator, patience=50),
        ]

    return handlers


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def interrupt(training: Any, event: Any) -> None:
    def stop(engine: Any) -> None:
        raise Interrupted

    training.trainer.add_event_handler(event, stop)
    with pytest.raises(Interrupted):
        training.trainer.run()


def equal_states(first: Any, second: Any, path: str = "") -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), path
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            equal_states(first[key], second[key], f"{path}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), path
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            equal_states(one, other, f"{path}.{index}")
    else:
        assert first == second, path


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_at_an_epoch_boundary_is_bit_exact(build: Any, tmp_path: Path, workers: int) -> None:
    whole = build(complete(tmp_path / "whole"), epochs=4, workers=workers)
    whole.trainer.run()
    first = build(complete(tmp_path / "parts"), epochs=4, workers=workers)
    interrupt(first, Events.ITERATION_COMPLETED(once=8))  # in epoch 3: its work is lost
    torch.rand(7)  # a new process has another random state
    second = build(complete(tmp_path / "parts"), epochs=4, workers=workers, init_seed=99)
    assert resume_training(second.trainer) == 2
    second.trainer.run()
    assert first.losses[:6] + second.losses == whole.losses
    states = [CheckpointFolder(tmp_path / name).load("checkpoint.pt") for name in ("whole", "parts")]
    for state in states:
        state.pop("random")
    equal_states(*states)
    models = [CheckpointFolder(tmp_path / name).load("model.pt") for name in ("whole", "parts")]
    equal_states(*models)


def test_without_reproducible_epochs_the_test_above_would_fail(build: Any, tmp_path: Path) -> None:
    """The control: saving and loading everything is not enough."""

    def handlers(network: Any, evaluator: Any, scheduler: Any) -> list[Any]:
        return [CheckpointHandler(tmp_path / "parts", scheduler, evaluator)]

    torch.manual_seed(1)
    whole = build(lambda *_: [], epochs=3)
    whole.trainer.run()
    first = build(handlers, epochs=3)
    interrupt(first, Events.ITERATION_COMPLETED(once=8))
    second = build(handlers, epochs=3, init_seed=99)
    resume_training(second.trainer)
    second.trainer.run()
    assert first.losses[:6] == whole.losses[:6]
    assert second.losses != whole.losses[6:]


def test_three_interruptions_and_a_balanced_sampler(build: Any, tmp_path: Path) -> None:
    def training(name: str) -> Any:
        sampler = train_sampler([index % 2 for index in range(12)], balanced=True, seed=3)
        return build(complete(tmp_path / name), epochs=4, sampler=sampler)

    whole = training("whole")
    whole.trainer.run()
    losses: list[float] = []
    for stop_at in (4, 7, 10):
        part = training("parts")
        if losses:
            resume_training(part.trainer)
        interrupt(part, Events.ITERATION_STARTED(once=stop_at))
        losses += part.losses
    last = training("parts")
    resume_training(last.trainer, tmp_path / "parts" / "checkpoint.pt")
    last.trainer.run()
    assert losses + last.losses == whole.losses


def test_best_score_survives_a_resume(build: Any, tmp_path: Path) -> None:
    first = build(complete(tmp_path), epochs=4)
    interrupt(first, Events.EPOCH_STARTED(once=3))
    second = build(complete(tmp_path), epochs=4)
    resume_training(second.trainer)
    assert second.evaluator.state.best_metric == first.evaluator.state.best_metric
    assert second.evaluator.state.best_metric_epoch > 0
    assert second.trainer.state.checkpoint_handler.best == first.trainer.state.checkpoint_handler.best


@pytest.mark.parametrize("value", [False, None, "false", ""])
def test_resume_off_does_nothing(build: Any, value: Any) -> None:
    training = build(epochs=1)
    assert resume_training(training.trainer, value) is None
    assert training.trainer.state.iteration == 0


def test_missing_state_is_an_error(build: Any, tmp_path: Path) -> None:
    training = build(complete(tmp_path / "empty"), epochs=1)
    with pytest.raises(CheckpointError, match=r"empty/checkpoint\.pt: resume was asked for"):
        resume_training(training.trainer, "true")
    with pytest.raises(ConfigError, match="needs a CheckpointHandler"):
        resume_training(build(epochs=1).trainer)


def test_finished_training_says_so(build: Any, tmp_path: Path) -> None:
    build(complete(tmp_path), epochs=2).trainer.run()
    with pytest.raises(CheckpointError, match=r"finished: 2 of 2 epochs are done\. Remedy: raise epochs"):
        resume_training(build(complete(tmp_path), epochs=2).trainer)
    longer = build(complete(tmp_path), epochs=3)
    assert resume_training(longer.trainer) == 2
    longer.trainer.run()
    assert longer.trainer.state.epoch == 3


def test_another_training_is_refused(build: Any, tmp_path: Path) -> None:
    build(complete(tmp_path), epochs=1).trainer.run()
    with pytest.raises(CheckpointError, match="3 iterations, now it has 4"):
        resume_training(build(complete(tmp_path), epochs=2, count=16).trainer)
    other = build(lambda network, evaluator, scheduler: [CheckpointHandler(tmp_path, class_names=["b", "a"])], epochs=2)
    with pytest.raises(CheckpointError, match=r"classes \['a', 'b'\], this run has \['b', 'a'\]"):
        resume_training(other.trainer)
    findings = build(lambda *_: [CheckpointHandler(tmp_path, class_names=["a", "b"], task="multilabel")], epochs=2)
    with pytest.raises(CheckpointError, match="trained for task multiclass, this run has multilabel"):
        resume_training(findings.trainer)
    wider = build(complete(tmp_path), epochs=2)
    wider.network[6] = torch.nn.Linear(4, 5)
    with pytest.raises(CheckpointError, match=r"'6\.weight' is \(2, 4\), the network's is \(5, 4\)"):
        resume_training(wider.trainer)
    with pytest.raises(CheckpointError, match="not a training state of this version"):
        resume_training(build(complete(tmp_path), epochs=2).trainer, tmp_path / "model.pt")


def test_another_optimiser_is_refused(build: Any, tmp_path: Path) -> None:
    build(complete(tmp_path), epochs=1).trainer.run()
    training = build(complete(tmp_path), epochs=2)
    training.trainer.optimizer = torch.optim.SGD(training.network.parameters(), lr=0.1)
    with pytest.raises(CheckpointError, match="optimiser's state does not fit"):
        resume_training(training.trainer)


def test_damaged_state_falls_back_loudly(build: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build(complete(tmp_path), epochs=2).trainer.run()
    path = tmp_path / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    training = build(complete(tmp_path), epochs=3)
    assert resume_training(training.trainer) == 1
    assert "Falling back" in caplog.text
    (tmp_path / "checkpoint_previous.pt").write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="differs from its digest"):
        resume_training(build(complete(tmp_path), epochs=3).trainer)


def test_without_checksum_the_flipped_bit_would_load(build: Any, tmp_path: Path) -> None:
    """The control for the test above: the format itself does not notice."""
    build(complete(tmp_path), epochs=1).trainer.run()
    path = tmp_path / "model.pt"
    weights = torch.load(path, weights_only=True)
    raw = weights["0.weight"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(raw)] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["0.weight"], weights["0.weight"])
    with pytest.raises(CheckpointError, match="differs from its digest"):
        CheckpointFolder(tmp_path).load("model.pt")
