"""The checkpoint handler in real trainings: what is written when, and what is refused."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.handlers import CheckpointSaver

from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.handlers import CheckpointHandler, ExponentialMovingAverage, training_run
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder


def with_checkpoint(folder: Path, **options: Any) -> Callable[..., list[Any]]:
    return lambda network, evaluator, scheduler: [CheckpointHandler(folder, scheduler, evaluator=evaluator, **options)]


def set_scores(evaluator: Any, scores: list[Any]) -> None:
    """Replaces the key metric by a list of scores, one a validation, before any handler looks at it."""
    remaining = iter(scores)
    metric = evaluator.state.metrics

    def replace(engine: Any) -> None:
        engine.state.metrics["val_auc"] = next(remaining)

    evaluator.add_event_handler(Events.EPOCH_COMPLETED, replace)
    registered = evaluator._event_handlers[Events.EPOCH_COMPLETED]
    names = [getattr(handler, "__name__", "") for handler, _, _ in registered]
    registered.insert(names.index("_compare_metrics"), registered.pop())
    assert metric is evaluator.state.metrics


def test_best_model_is_a_plain_state_dict_of_the_best_epoch(build: Any, folder: Path) -> None:
    training = build(with_checkpoint(folder), epochs=3)
    set_scores(training.evaluator, [0.5, 0.9, 0.7])
    weights = {}
    training.trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda engine: weights.update(
            {engine.state.epoch: {k: v.clone() for k, v in training.network.state_dict().items()}}
        ),
    )
    training.trainer.run()
    model = torch.load(folder / "model.pt", weights_only=True)
    assert list(model) == list(training.network.state_dict())
    for name, value in model.items():
        assert torch.equal(value, weights[2][name]), name
    assert not torch.equal(model["0.weight"], weights[3]["0.weight"])
    index = json.loads((folder / "checkpoints.json").read_text())["files"]
    assert (index["model.pt"]["epoch"], index["model.pt"]["value"]) == (2, 0.9)


def test_undefined_scores_rank_worst(build: Any, folder: Path) -> None:
    training = build(with_checkpoint(folder), epochs=3)
    set_scores(training.evaluator, [math.nan, 0.6, math.nan])
    training.trainer.run()
    assert json.loads((folder / "checkpoints.json").read_text())["files"]["model.pt"]["epoch"] == 2
    assert (training.evaluator.state.best_metric, training.evaluator.state.best_metric_epoch) == (0.6, 2)


def test_stock_saver_freezes_on_an_undefined_score(build: Any, folder: Path) -> None:
    """The control: what the handler replaces keeps the first epoch for ever."""
    training = build(epochs=3)
    CheckpointSaver(str(folder), {"model": training.network}, save_key_metric=True).attach(training.evaluator)
    set_scores(training.evaluator, [math.nan, 0.6, 0.7])
    training.trainer.run()
    assert training.evaluator.state.best_metric_epoch == 1


def test_without_a_defined_score_the_last_network_is_kept(
    build: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = build(with_checkpoint(folder), epochs=2)
    set_scores(training.evaluator, [math.nan, math.nan])
    training.trainer.run()
    model = torch.load(folder / "model.pt", weights_only=True)
    assert torch.equal(model["0.weight"], training.network.state_dict()["0.weight"])
    assert "no validation gave a defined score" in caplog.text


def test_numpy_scores_become_python_floats(build: Any, folder: Path) -> None:
    training = build(with_checkpoint(folder), epochs=1)
    set_scores(training.evaluator, [np.float64(0.75)])
    training.trainer.run()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert type(state["parts"]["best"]["value"]) is float
    assert state["parts"]["best"] == {"value": 0.75, "epoch": 1, "metric": "val_auc"}


def test_training_state_holds_plain_values_only(build: Any, folder: Path) -> None:
    training = build(with_checkpoint(folder, class_names=["a", "b"], seed=3, save_last=True), epochs=2)
    training.trainer.state.mlflow_run_id = "run"
    training.trainer.run()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert (state["epoch"], state["iteration"], state["epoch_length"]) == (2, 6, 3)
    assert (state["seed"], state["class_names"], state["mlflow_run_id"]) == (3, ["a", "b"], "run")
    assert set(state["optimizer"]) == {"state", "param_groups"}
    assert state["lr_scheduler"]["last_epoch"] == 6
    assert torch.load(folder / "checkpoint_previous.pt", weights_only=True)["epoch"] == 1
    last = torch.load(folder / "model_last.pt", weights_only=True)
    assert torch.equal(last["0.weight"], training.network.state_dict()["0.weight"])


def test_facts_are_written_before_the_first_weights(build: Any, folder: Path) -> None:
    class Info:
        weights_were_there: list[bool]

        def save(self, where: Path) -> None:
            self.weights_were_there = [(Path(where) / "model.pt").exists()]
            (Path(where) / "model.json").write_text("{}")

    info = Info()
    build(with_checkpoint(folder, model_info=info), epochs=2).trainer.run()
    assert info.weights_were_there == [False]
    assert (folder / "model.json").exists()


def test_the_run_that_made_the_weights_is_known(build: Any, folder: Path) -> None:
    training = build(with_checkpoint(folder), epochs=1)
    training.trainer.run()
    assert training_run(folder) is None
    resumed = build(with_checkpoint(folder), epochs=1)
    resumed.trainer.state.mlflow_run_id = "def"
    resumed.trainer.run()
    assert training_run(folder) == "def"
    assert training_run(folder / "nowhere") is None
    (folder / "checkpoints.json").write_text("{")
    with pytest.raises(CheckpointError, match="unreadable"):
        training_run(folder)


def test_files_are_readable_for_everyone_and_orphans_go(build: Any, folder: Path) -> None:
    folder.mkdir()
    orphan = folder / ".model.pt.1.medmamba-tmp"
    orphan.write_bytes(b"half")
    build(with_checkpoint(folder), epochs=1).trainer.run()
    for name in ("model.pt", "checkpoint.pt", "checkpoints.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o644, name
    assert not orphan.exists()
    assert not list(folder.glob(".*"))


def test_replacing_an_earlier_training_is_told(build: Any, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    build(with_checkpoint(folder), epochs=1).trainer.run()
    assert "earlier training" not in caplog.text
    build(with_checkpoint(folder), epochs=1).trainer.run()
    assert "the weights of an earlier training" in caplog.text


def test_averaged_weights_are_kept_and_validated(build: Any, folder: Path) -> None:
    def handlers(network: Any, evaluator: Any, scheduler: Any) -> list[Any]:
        return [
            CheckpointHandler(folder, scheduler, evaluator),
            ExponentialMovingAverage(network, evaluator, decay=0.9),
        ]

    training = build(handlers, epochs=1)
    training.trainer.run()
    model = torch.load(folder / "model.pt", weights_only=True)
    assert training.evaluator.network is not training.network
    assert torch.equal(model["0.weight"], training.evaluator.network.state_dict()["0.weight"])
    assert not torch.equal(model["0.weight"], training.network.state_dict()["0.weight"])


def test_non_finite_weights_are_refused_and_the_old_file_stays(build: Any, folder: Path) -> None:
    training = build(with_checkpoint(folder), epochs=2)

    def poison(engine: Any) -> None:
        with torch.no_grad():
            training.network[6].bias[0] = math.nan

    training.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), poison)
    training.trainer._process_function = lambda engine, batch: [{"loss": torch.tensor(0.0)}]
    training.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda engine: None)
    with pytest.raises(CheckpointError, match=r"6\.bias.* holds NaN or Inf"):
        training.trainer.run()
    assert CheckpointFolder(folder).load("checkpoint.pt")["epoch"] == 1


@pytest.mark.parametrize("where", ["/proc/medmamba", "/dev/null/medmamba"])
def test_unwritable_folder_is_refused_before_the_first_batch(build: Any, where: str) -> None:
    training = build(with_checkpoint(Path(where)), epochs=1)
    with pytest.raises(CheckpointError, match="cannot be written"):
        training.trainer.run()
    assert training.losses == []


def test_interval_and_last_epoch(build: Any, folder: Path) -> None:
    training = build(with_checkpoint(folder, interval=2), epochs=3)
    saved = []
    training.trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda engine: saved.append((folder / "checkpoint.pt").exists())
    )
    training.trainer.run()
    assert saved == [False, False, True]
    assert CheckpointFolder(folder).load("checkpoint.pt")["epoch"] == 3


def test_unknown_metric_and_unusable_metric_are_named(build: Any, folder: Path) -> None:
    with pytest.raises(ConfigError, match="no metric 'val_f1'; it has: val_auc"):
        build(with_checkpoint(folder, key_metric="val_f1"), epochs=1).trainer.run()
    training = build(with_checkpoint(folder, key_metric="table"), epochs=1)
    training.evaluator.add_event_handler(
        Events.EPOCH_STARTED, lambda engine: engine.state.metrics.update(table=torch.ones(2))
    )
    with pytest.raises(ConfigError, match="'table' is not a single number"):
        training.trainer.run()


def test_without_an_evaluator_the_last_network_is_the_model(build: Any, folder: Path) -> None:
    training = build(lambda *_: [CheckpointHandler(folder)], epochs=1, validate=False)
    training.trainer.run()
    model = torch.load(folder / "model.pt", weights_only=True)
    assert torch.equal(model["6.weight"], training.network.state_dict()["6.weight"])
