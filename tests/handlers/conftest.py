"""A small real training for the handlers: MONAI engines, random transforms, dropout, batch norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from mlflow import MlflowClient
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.transforms import Compose, RandFlipd, RandGaussianNoised
from torch import nn

from medmamba_monai.engines import EvaluationStep, TrainingStep, parameter_groups, warmup_cosine
from medmamba_monai.handlers import default_tracking_uri
from medmamba_monai.metrics import ValidationScore

CLASSES = ["benign", "malignant"]


class TinyNetwork(nn.Sequential):
    """(B, 1, 8, 8) → (B, 2); has batch norm and dropout, so that buffers and the generator's state matter."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
        )  # fmt: skip


def items(count: int, offset: int = 0) -> list[dict[str, Any]]:
    generator = np.random.RandomState(offset)
    labels = [index % 2 for index in range(count)]
    return [
        {
            "image": torch.as_tensor(generator.rand(1, 8, 8) + label, dtype=torch.float32),
            "label": label,
            "file": f"folder/{offset + index:03d}.png",
        }
        for index, label in enumerate(labels)
    ]


@dataclass
class Training:
    """A trainer and what belongs to it; ``losses`` are collected while it runs."""

    network: nn.Module
    trainer: Any
    evaluator: Any
    scheduler: Any
    losses: list[float] = field(default_factory=list)


@pytest.fixture(scope="session")
def build() -> Callable[..., Training]:
    """Builds a training; ``handlers`` gives the trainer's handlers from (network, evaluator, scheduler)."""

    def builder(
        handlers: Callable[[nn.Module, Any, Any], Sequence[Any]] = lambda network, evaluator, scheduler: [],
        epochs: int = 3,
        workers: int = 0,
        count: int = 12,
        val_handlers: Sequence[Any] = (),
        val_items: list[dict[str, Any]] | None = None,
        validate: bool = True,
        sampler: Any = None,
        init_seed: int = 0,
    ) -> Training:
        torch.manual_seed(init_seed)
        network = TinyNetwork()
        transforms = Compose([RandFlipd("image", prob=0.5, spatial_axis=0), RandGaussianNoised("image", prob=0.7)])
        loader = DataLoader(
            Dataset(items(count), transforms), batch_size=4, num_workers=workers, shuffle=sampler is None,
            sampler=sampler,
        )  # fmt: skip
        val_loader = DataLoader(Dataset(items(6, offset=100) if val_items is None else val_items), batch_size=4)
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"), val_data_loader=val_loader, network=network,
            iteration_update=EvaluationStep(), val_handlers=list(val_handlers) or None,
            key_val_metric={"val_auc": ValidationScore("auc", softmax=True)},
        )  # fmt: skip
        optimizer = torch.optim.AdamW(parameter_groups(network, 0.05), lr=0.01)
        scheduler = warmup_cosine(optimizer, total_steps=100, warmup_steps=2)
        mine = list(handlers(network, evaluator, scheduler))
        if validate:
            mine.append(ValidationHandler(1, evaluator))  # last, to prove that the order is free
        mine.append(LrScheduleHandler(scheduler, print_lr=False, epoch_level=False))
        trainer = SupervisedTrainer(
            device=torch.device("cpu"), max_epochs=epochs, train_data_loader=loader, network=network,
            optimizer=optimizer, loss_function=nn.CrossEntropyLoss(), iteration_update=TrainingStep(),
            train_handlers=mine,
        )  # fmt: skip
        training = Training(network, trainer, evaluator, scheduler)

        def collect(engine: Engine) -> None:
            training.losses.append(float(engine.state.output[0]["loss"]))

        trainer.add_event_handler(Events.ITERATION_COMPLETED, collect)
        return training

    return builder


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow database for the session: making its tables costs seconds."""
    uri = default_tracking_uri(tmp_path_factory.mktemp("mlflow"))
    MlflowClient(tracking_uri=uri).search_experiments()
    return uri


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"
