"""The same handlers on two gloo processes: one writes, all agree, nothing hangs, nothing is counted twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Events
from mlflow import MlflowClient
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from torch import nn

from medmamba_monai.engines import (
    EvaluationStep,
    NumericsError,
    TrainingStep,
    evaluation_sampler,
    seed_everything,
    train_sampler,
    warmup_cosine,
)
from medmamba_monai.handlers import (
    CheckpointHandler,
    EarlyStopping,
    ExponentialMovingAverage,
    MLflowTracker,
    PredictionWriter,
    Preempted,
    Progress,
    ReproducibleEpochs,
    TerminateOnSignal,
    resume_training,
)
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder
from medmamba_monai.metrics import ValidationScore, classification_report
from tests import children


def on_two_ranks(tmp_path: Path, work: Callable[[int], None]) -> list[int]:
    """Two processes that form a group; returns their exit codes."""
    meeting = tmp_path / f"meeting_{uuid.uuid4().hex}"

    def rank(number: int) -> None:
        os.environ.update(RANK=str(number), WORLD_SIZE="2", LOCAL_RANK=str(number))
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=2)
        work(number)

    return [children.wait(pid) for pid in [children.start(partial(rank, number)) for number in range(2)]]


def items(count: int) -> list[dict[str, Any]]:
    return [
        {"image": torch.rand(1, 6, 6) + index % 2, "label": index % 2, "file": f"{index:02d}.png"}
        for index in range(count)
    ]


class Training:
    """All handlers, as a config would name them, on the present process group."""

    def __init__(
        self,
        folder: Path,
        store: str | None = None,
        experiment: str = "",
        epochs: int = 2,
        balanced: bool = False,
        patience: int = 50,
    ) -> None:
        seed_everything(1)
        self.losses: list[float] = []
        plain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, 2))
        self.network = nn.parallel.DistributedDataParallel(plain)
        train, validation = items(16), items(7)
        sampler = train_sampler([item["label"] for item in train], balanced=balanced, seed=3)
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.01)
        scheduler = warmup_cosine(optimizer, 100, 2)
        report = folder / f"eval_{dist.get_rank()}"
        self.evaluator = SupervisedEvaluator(
            device=torch.device("cpu"), network=self.network, iteration_update=EvaluationStep(),
            val_data_loader=DataLoader(Dataset(validation), batch_size=2, sampler=evaluation_sampler(validation)),
            key_val_metric={"val_auc": ValidationScore("auc", softmax=True)},
            val_handlers=[PredictionWriter(report, ["a", "b"], metrics=classification_report, softmax=True)],
        )  # fmt: skip
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"), max_epochs=epochs, network=self.network, optimizer=optimizer,
            train_data_loader=DataLoader(Dataset(train), batch_size=4, sampler=sampler),
            loss_function=nn.CrossEntropyLoss(), iteration_update=TrainingStep(),
            train_handlers=[
                MLflowTracker(
                    tracking_uri=store, enabled=store is not None, experiment_name=experiment,
                    output_dir=folder, evaluator=self.evaluator,
                ),
                TerminateOnSignal(self.evaluator),
                CheckpointHandler(folder / "models", scheduler, self.evaluator),
                ReproducibleEpochs(4),
                ExponentialMovingAverage(self.network, self.evaluator, decay=0.9),
                EarlyStopping(self.evaluator, patience),
                Progress(self.evaluator),
                ValidationHandler(1, self.evaluator),
                LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            ],
        )  # fmt: skip
        self.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: self.losses.append(float(engine.state.output[0]["loss"]))
        )


@pytest.fixture
def experiment() -> str:
    return f"distributed_{uuid.uuid4().hex}"


def run_whole_and_in_parts(tmp_path: Path, **options: Any) -> None:
    """Trains once undisturbed, once with a break after the first epoch; the weights must be equal."""

    def whole(rank: int) -> None:
        Training(tmp_path / "whole", **options).trainer.run()

    def first_part(rank: int) -> None:
        training = Training(tmp_path / "parts", **options)
        training.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), lambda engine: os._exit(9))
        training.trainer.run()

    def second_part(rank: int) -> None:
        training = Training(tmp_path / "parts", **options)
        assert resume_training(training.trainer) == 1
        training.trainer.run()

    assert on_two_ranks(tmp_path, whole) == [0, 0]
    assert on_two_ranks(tmp_path, first_part) == [9, 9]
    assert on_two_ranks(tmp_path, second_part) == [0, 0]
    states = [CheckpointFolder(tmp_path / name / "models").load("checkpoint.pt") for name in ("whole", "parts")]
    for name, value in states[0]["network"].items():
        assert not name.startswith("module.")
        assert torch.equal(value, states[1]["network"][name]), name


def test_resume_is_exact_with_a_balanced_sampler(tmp_path: Path) -> None:
    run_whole_and_in_parts(tmp_path, balanced=True)


def test_one_writes_and_records(tmp_path: Path, store: str, experiment: str) -> None:
    client = MlflowClient(tracking_uri=store)
    run_whole_and_in_parts(tmp_path, store=store, experiment=experiment)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED"]  # whole, and the parts as one
    evaluation = tmp_path / "whole" / "eval_0"
    assert not (tmp_path / "whole" / "eval_1").exists()
    with (evaluation / "predictions.csv").open() as stream:
        assert [row["file"] for row in csv.DictReader(stream)] == [f"{index:02d}.png" for index in range(7)]
    assert json.loads((evaluation / "metrics.json").read_text())["n"] == 7


def test_a_signal_to_one_stops_both(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        training = Training(tmp_path, epochs=50)
        if rank == 1:
            training.trainer.add_event_handler(
                Events.ITERATION_STARTED(once=3), lambda engine: signal.raise_signal(signal.SIGTERM)
            )
        try:
            training.trainer.run()
        except Preempted:
            assert training.trainer.state.iteration == 3
            raise

    assert on_two_ranks(tmp_path, work) == [75, 75]
    assert CheckpointFolder(tmp_path / "models").load("checkpoint.pt")["iteration"] == 3


def test_an_early_stop_stops_both(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        training = Training(tmp_path, epochs=50, patience=1)
        training.trainer.run()
        assert training.trainer.state.epoch < 50

    assert on_two_ranks(tmp_path, work) == [0, 0]


def test_nan_in_one_makes_both_skip_and_then_fail(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        training = Training(tmp_path)
        if rank == 1:

            def poison(engine: Any) -> None:
                engine.state.batch["image"].fill_(float("nan"))

            training.trainer.add_event_handler(Events.ITERATION_STARTED, poison)
        before = {name: value.clone() for name, value in training.network.state_dict().items()}
        with pytest.raises(NumericsError, match="not finite 3 times in a row"):
            training.trainer.run()
        for name, value in training.network.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert training.trainer.state.iteration == 3

    # a validation comes after two iterations, whose numbers are finite because nothing was learnt
    assert on_two_ranks(tmp_path, work) == [0, 0]
