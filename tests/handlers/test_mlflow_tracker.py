"""One run for each training, whole and with its true status, in a real database."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import sqlite3
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from monai.bundle import ConfigWorkflow
from monai.handlers import MLFlowHandler, StatsHandler, from_engine
from monai.utils import path_to_sqlite_uri

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers import (
    CheckpointHandler,
    MLflowTracker,
    Preempted,
    TerminateOnSignal,
    record_model,
    resume_training,
    training_run,
)
from medmamba_monai.handlers.mlflow_client import QuietClient


@pytest.fixture
def experiment() -> str:
    return f"experiment_{uuid.uuid4().hex}"


@pytest.fixture
def client(store: str) -> MlflowClient:
    return MlflowClient(tracking_uri=store)


def tracked(store: str, experiment: str, *more: Any, **options: Any) -> Any:
    """Handlers of a training with a tracker; ``more`` are further handlers or functions of the evaluator."""

    def handlers(network: Any, evaluator: Any, scheduler: Any) -> list[Any]:
        tracker = MLflowTracker(tracking_uri=store, experiment_name=experiment, evaluator=evaluator, **options)
        return [tracker, *more]

    return handlers


def runs(client: MlflowClient, experiment: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else client.search_runs([found.experiment_id])


def history(client: MlflowClient, run: Any, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]


def test_a_finished_training(build: Any, store: str, experiment: str, client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.json").write_text("{}")
    training = build(
        tracked(
            store, experiment, params={"optimizer": {"lr": 0.01}}, class_names=["a", "b"], data_digest="abc",
            tags={"purpose": "test"}, artifacts=[tmp_path / "model.pt", str(tmp_path / "configs")],
        ),
        epochs=2,
    )  # fmt: skip
    training.trainer.run()
    (run,) = runs(client, experiment)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("train_")
    params = run.data.params
    assert (params["optimizer.lr"], params["class_names"]) == ("0.01", "['a', 'b']")
    assert (params["data_digest"], params["max_epochs"]) == ("abc", "2")
    assert params["version.torch"] == version("torch")
    assert run.data.tags["purpose"] == "test"
    assert [step for step, _ in history(client, run, "train_loss")] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in history(client, run, "train_loss")] == pytest.approx(training.losses)
    assert [step for step, _ in history(client, run, "train_loss_epoch")] == [1, 2]
    assert history(client, run, "learning_rate")[0][0] == 1
    assert [step for step, _ in history(client, run, "val_auc")] == [1, 2]
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"model.pt", "configs"}
    assert run.info.run_id == training.trainer.state.mlflow_run_id


@pytest.mark.parametrize(("error", "status"), [(ValueError("planted"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
@pytest.mark.parametrize("stock_handler_first", [True, False])
def test_a_training_that_dies(
    build: Any,
    store: str,
    experiment: str,
    client: MlflowClient,
    error: BaseException,
    status: str,
    stock_handler_first: bool,
) -> None:
    training = build(tracked(store, experiment, StatsHandler(name="stats")), epochs=2)
    if stock_handler_first:
        handlers = training.trainer._event_handlers[Events.EXCEPTION_RAISED]
        assert len(handlers) == 2

    def fail(engine: Any) -> None:
        raise error

    training.trainer.add_event_handler(Events.ITERATION_STARTED(once=5), fail)
    with pytest.raises(type(error)):
        training.trainer.run()
    (run,) = runs(client, experiment)
    assert run.info.status == status
    assert run.data.tags["error"].startswith(type(error).__name__)
    assert len(history(client, run, "train_loss")) == 4


def test_an_error_in_validation_fails_the_run(build: Any, store: str, experiment: str, client: MlflowClient) -> None:
    training = build(tracked(store, experiment), epochs=2)

    def fail(engine: Any) -> None:
        raise ValueError("planted")

    training.evaluator.add_event_handler(Events.ITERATION_STARTED, fail)
    with pytest.raises(ValueError, match="planted"):
        training.trainer.run()
    assert [run.info.status for run in runs(client, experiment)] == ["FAILED"]


def test_a_signal_kills_and_a_resume_continues_the_same_run(
    build: Any, store: str, experiment: str, client: MlflowClient, folder: Path
) -> None:
    def handlers(lr: float) -> Any:
        def make(network: Any, evaluator: Any, scheduler: Any) -> list[Any]:
            return [
                TerminateOnSignal(evaluator),
                MLflowTracker(tracking_uri=store, experiment_name=experiment, evaluator=evaluator, params={"lr": lr}),
                CheckpointHandler(folder, scheduler, evaluator),
            ]

        return make

    first = build(handlers(0.1), epochs=2)
    first.trainer.add_event_handler(
        Events.ITERATION_STARTED(once=4), lambda engine: os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(Preempted):
        first.trainer.run()
    assert [run.info.status for run in runs(client, experiment)] == ["KILLED"]
    second = build(handlers(0.2), epochs=2)
    resume_training(second.trainer)
    seen = []
    second.trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda engine: seen.extend(run.info.status for run in runs(client, experiment))
    )
    second.trainer.run()
    assert seen == ["RUNNING"]
    (run,) = runs(client, experiment)
    assert run.info.status == "FINISHED"
    assert [step for step, _ in history(client, run, "train_loss")] == [1, 2, 3, 4, 5, 6]
    assert (run.data.params["lr"], run.data.tags["resumed.lr"]) == ("0.1", "0.2")


@pytest.mark.parametrize("name", [None, "mine"])
def test_no_run_is_ever_adopted(
    build: Any, store: str, experiment: str, client: MlflowClient, name: str | None
) -> None:
    location = client.create_experiment(experiment)
    orphan = client.create_run(location, run_name=name)  # of a process that was killed
    for _ in range(2):
        build(tracked(store, experiment, run_name=name), epochs=1).trainer.run()
    found = runs(client, experiment)
    assert sorted(run.info.status for run in found) == ["FINISHED", "FINISHED", "RUNNING"]
    assert client.get_run(orphan.info.run_id).data.metrics == {}


def test_the_stock_handler_adopts(build: Any, store: str, experiment: str, client: MlflowClient) -> None:
    """The control for the test above."""
    location = client.create_experiment(experiment)
    orphan = client.create_run(location, run_name="dead")
    stock = MLFlowHandler(
        tracking_uri=store, experiment_name=experiment, output_transform=from_engine(["loss"], first=True)
    )
    build(lambda *_: [stock], epochs=1).trainer.run()
    assert len(runs(client, experiment)) == 1
    assert client.get_run(orphan.info.run_id).data.metrics != {}


@pytest.mark.parametrize("enabled", [True, False])
def test_stock_handlers_are_replaced(
    build: Any, store: str, experiment: str, client: MlflowClient, tmp_path: Path, enabled: bool
) -> None:
    config = tmp_path / "config.json"
    config.write_text("{}")

    def stock(**options: Any) -> MLFlowHandler:
        return MLFlowHandler(tracking_uri=store, experiment_name=experiment, **options)

    training = build(
        tracked(
            store, experiment,
            stock(artifacts=str(config), tag_name="train_loss", close_on_complete=True,
                  output_transform=from_engine(["loss"], first=True)),
            enabled=enabled,
        ),
        epochs=2, val_handlers=[stock(iteration_log=False)],
    )  # fmt: skip
    training.trainer.run()
    (run,) = runs(client, experiment)
    assert run.info.status == "FINISHED"
    assert len(history(client, run, "train_loss")) == 6
    assert len(history(client, run, "val_auc")) == 2
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["config.json"]


BUNDLE: dict[str, Any] = {
    "imports": ["$import torch", "$from medmamba_monai import engines"],
    "bundle_root": ".",
    "output_dir": "$@bundle_root + '/eval'",
    "device": "cpu",
    "data": "$[{'image': torch.rand(1, 4, 4) + i % 2, 'label': i % 2} for i in range(8)]",
    "train": {
        "loader": {
            "_target_": "DataLoader",
            "dataset": {"_target_": "Dataset", "data": "@data"},
            "batch_size": 4,
        },
        "handlers": [
            {
                "_target_": "medmamba_monai.handlers.MLflowTracker",
                "output_dir": "@output_dir",
                "enabled": "@mlflow",
                "tracking_uri": "@tracking_uri",
                "experiment_name": "@experiment_name",
                "run_name": "@run_name",
                "evaluator": "@validate#evaluator",
            },
            {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": 1},
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "device": "@device",
            "max_epochs": 2,
            "train_data_loader": "@train#loader",
            "network": "@net",
            "optimizer": {"_target_": "torch.optim.AdamW", "params": "$engines.parameter_groups(@net)"},
            "loss_function": {"_target_": "torch.nn.CrossEntropyLoss"},
            "iteration_update": {"_target_": "medmamba_monai.engines.TrainingStep"},
            "train_handlers": "@train#handlers",
        },
    },
    "net": "$torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))",
    "validate": {
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@train#loader",
            "network": "@net",
            "iteration_update": {"_target_": "medmamba_monai.engines.EvaluationStep"},
            "metric_cmp_fn": "$engines.better_metric",
            "key_val_metric": {"val_auc": {"_target_": "medmamba_monai.metrics.ValidationScore", "softmax": True}},
            "val_handlers": "@validate#handlers",
        },
    },
    "mlflow": True,
    "tracking_uri": None,
    "experiment_name": None,
    "run_name": None,
    "save_execute_config": True,
    "run": ["$@train#trainer.run()"],
}


@pytest.mark.parametrize(
    ("tracking", "mlflow", "expected"),
    [("mlflow", True, 1), (None, True, 1), ("mlflow", "false", 1), (None, "false", 0)],
)
def test_bundles_have_one_run_or_none(
    tmp_path: Path, store: str, experiment: str, client: MlflowClient, tracking: Any, mlflow: Any, expected: int
) -> None:
    config = tmp_path / "configs" / "train.json"
    config.parent.mkdir()
    config.write_text(json.dumps(BUNDLE))
    workflow = ConfigWorkflow(
        str(config), workflow_type="train", tracking=tracking, bundle_root=str(tmp_path), tracking_uri=store,
        experiment_name=experiment, mlflow=mlflow, logging_file=False,
    )  # fmt: skip
    workflow.initialize()
    workflow.run()
    found = runs(client, experiment)
    assert [run.info.status for run in found] == ["FINISHED"] * expected
    for run in found:
        assert len(history(client, run, "train_loss")) == 4
        assert len(history(client, run, "val_auc")) == 2
        names = [item.path for item in client.list_artifacts(run.info.run_id)]
        assert len(names) == (1 if tracking else 0)


@pytest.mark.parametrize("encoded", [False, True])
def test_default_store_lies_in_the_output_folder(build: Any, tmp_path: Path, store: str, encoded: bool) -> None:
    artifact = tmp_path / "a.txt"
    artifact.write_text("x")
    output = tmp_path / "out püt 100%"
    output.mkdir()
    uri = path_to_sqlite_uri(output / "mlruns.db") if encoded else None
    shutil.copy(store.removeprefix("sqlite:///"), output / "mlruns.db")  # saves the time of making the tables
    handlers = lambda network, evaluator, scheduler: [MLflowTracker(output, tracking_uri=uri, artifacts=[artifact])]  # noqa: E731
    build(handlers, epochs=1).trainer.run()
    query = "select r.status from runs r join experiments e using (experiment_id) where e.name = 'medmamba_monai'"
    with sqlite3.connect(output / "mlruns.db") as database:
        assert database.execute(query).fetchall() == [("FINISHED",)]
    assert len(list((output / "mlruns").rglob("a.txt"))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", output.name]


def test_switched_off_nothing_is_touched(build: Any, tmp_path: Path) -> None:
    handlers = lambda network, evaluator, scheduler: [MLflowTracker(tmp_path / "out", enabled="false")]  # noqa: E731
    build(handlers, epochs=1).trainer.run()
    assert not (tmp_path / "out").exists()


def test_only_rank_zero_records(
    build: Any, store: str, experiment: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    build(tracked(store, experiment), epochs=1).trainer.run()
    assert runs(client, experiment) == []


def test_a_dead_server_does_not_change_the_training(
    build: Any, experiment: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = build(epochs=2)
    torch.manual_seed(4)
    plain.trainer.run()
    training = build(tracked("http://127.0.0.1:9", experiment), epochs=2)
    torch.manual_seed(4)
    start = time.monotonic()
    training.trainer.run()
    assert time.monotonic() - start < 8
    assert training.trainer.state.epoch == 2
    told = [record for record in caplog.records if "The run goes on" in record.message]
    assert len(told) == 1
    assert told[0].levelno == logging.WARNING
    assert "values could not be sent" in caplog.text
    for name, value in plain.network.state_dict().items():
        assert value.shape == training.network.state_dict()[name].shape


@pytest.mark.parametrize("down", [range(0, 1), range(3, 6), range(6, 9)])
def test_what_a_server_missed_is_sent_later(
    build: Any, store: str, experiment: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, down: range
) -> None:
    calls = iter(range(10_000))
    real = QuietClient.call

    def flapping(self: QuietClient, method: str, *args: Any, **kwargs: Any) -> Any:
        return None if next(calls) in down else real(self, method, *args, **kwargs)

    monkeypatch.setattr(QuietClient, "call", flapping)
    training = build(tracked(store, experiment), epochs=4)
    training.trainer.run()
    (run,) = runs(client, experiment)
    assert [step for step, _ in history(client, run, "train_loss")] == list(range(1, 13))
    assert run.info.status == "FINISHED"


def test_undefined_and_large_metrics(build: Any, store: str, experiment: str, client: MlflowClient) -> None:
    training = build(tracked(store, experiment), epochs=1)
    training.evaluator.add_event_handler(
        Events.EPOCH_STARTED,
        lambda engine: engine.state.metrics.update(undefined=math.nan, confusion=torch.eye(2)),
    )
    training.trainer.run()
    (run,) = runs(client, experiment)
    assert math.isnan(history(client, run, "undefined")[0][1])
    assert run.data.metrics["confusion_1_1"] == 1.0


def test_an_evaluation_by_itself(build: Any, store: str, experiment: str, client: MlflowClient) -> None:
    tracker = MLflowTracker(tracking_uri=store, experiment_name=experiment)
    training = build(val_handlers=[tracker])
    training.evaluator.run()
    (run,) = runs(client, experiment)
    assert run.info.run_name.startswith("evaluate_")
    assert run.info.status == "FINISHED"
    assert len(history(client, run, "val_auc")) == 1


class KeptModel:
    """A model that the store knows, without files of its own."""

    def __init__(self, file: Path, works: bool = True) -> None:
        self.files = [file]
        self.works = works
        self.model_id: str | None = None

    def log(self, client: QuietClient, run_id: str) -> str | None:
        if not self.works:
            return None
        run = client.call("get_run", run_id)
        self.model_id = client.call(
            "create_logged_model", run.info.experiment_id, name="model", source_run_id=run_id
        ).model_id
        client.call("log_outputs", run_id, [LoggedModelOutput(self.model_id, step=0)])
        return self.model_id


class Writes:
    """Handler that writes files when an engine has finished."""

    def __init__(self, **files: tuple[Path, str]) -> None:
        self.files = files.values()

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        for path, text in self.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def artifacts(client: MlflowClient, run: Any, folder: str | None = None) -> set[str]:
    found = client.list_artifacts(run.info.run_id, folder)
    return {item.path for item in found if not item.is_dir}.union(
        *(artifacts(client, run, item.path) for item in found if item.is_dir)
    )


@pytest.mark.parametrize("works", [True, False])
def test_a_model_takes_the_place_of_its_weights(
    build: Any, store: str, experiment: str, client: MlflowClient, tmp_path: Path, works: bool
) -> None:
    weights, calibration = tmp_path / "model.pt", tmp_path / "calibration.json"
    weights.write_bytes(b"weights")
    model = KeptModel(weights, works)
    training = build(
        lambda network, evaluator, scheduler: [
            MLflowTracker(
                tracking_uri=store,
                experiment_name=experiment,
                evaluator=evaluator,
                artifacts=[weights],
                model=model,
                outputs=[calibration],
            ),
            CheckpointHandler(tmp_path / "models", scheduler, evaluator),
        ],
        epochs=2,
    )
    training.trainer.run()
    (run,) = runs(client, experiment)
    assert (run.info.status, artifacts(client, run)) == ("FINISHED", set())
    calibration.write_text("{}")
    for _ in range(2):
        record_model(training.trainer)  # the second time there is nothing left to do
    (run,) = runs(client, experiment)
    assert run.info.status == "FINISHED"
    assert artifacts(client, run) == ({"calibration.json"} if works else {"calibration.json", "model.pt"})
    best = training.evaluator.state.best_metric
    assert history(client, run, "best_val_auc") == [(training.evaluator.state.best_metric_epoch, best)]
    assert training_run(tmp_path / "models") == run.info.run_id
    if works:
        assert [(metric.key, metric.value) for metric in client.get_logged_model(model.model_id).metrics] == [
            ("best_val_auc", best)
        ]


def test_no_model_of_a_training_that_failed(build: Any, store: str, experiment: str, tmp_path: Path) -> None:
    model = KeptModel(tmp_path / "model.pt")
    training = build(tracked(store, experiment, model=model), epochs=2)

    def fail(engine: Any) -> None:
        raise ValueError("planted")

    training.trainer.add_event_handler(Events.ITERATION_STARTED(once=5), fail)
    with pytest.raises(ValueError, match="planted"):
        training.trainer.run()
    record_model(training.trainer)
    record_model(build(tracked(store, experiment, model=model, enabled=False), epochs=1).trainer)
    assert model.model_id is None


def test_an_evaluation_leads_to_its_training_and_brings_all_it_wrote(
    build: Any, store: str, experiment: str, client: MlflowClient, tmp_path: Path
) -> None:
    model = KeptModel(tmp_path / "model.pt")
    training = build(tracked(store, experiment, model=model), epochs=1)
    training.trainer.run()
    record_model(training.trainer)
    (trained,) = runs(client, experiment)
    metrics, figures, report = tmp_path / "metrics.json", tmp_path / "figures", tmp_path / "report.html"
    figures.mkdir()
    for left in (figures / "of_an_earlier_run.png", report):
        left.write_text("old")
    text = json.dumps({"auc": 0.75, "intervals": {"auc": [0.5, 0.9]}, "per_class": {"benign": {"f1": 0.5}}})
    writes = Writes(a=(metrics, text), b=(figures / "roc.png", "new"), c=(figures / "deep" / "x.png", "new"))
    tracker = MLflowTracker(
        tracking_uri=store, experiment_name=experiment, artifacts=[metrics], outputs=[figures, report, tmp_path / "no"],
        scores=metrics, part="val", training_run_id=trained.info.run_id,
    )  # fmt: skip
    build(val_handlers=[writes, tracker]).evaluator.run()
    run = client.get_run(tracker_run(client, experiment, "evaluate"))
    assert run.info.status == "FINISHED"
    assert artifacts(client, run) == {"metrics.json", "figures/roc.png", "figures/deep/x.png"}
    assert history(client, run, "val_auc") == [(0, 0.75)]  # the report's, once
    assert run.data.metrics["val_intervals/auc_high95"] == 0.9
    assert run.data.metrics["val_per_class/f1.benign"] == 0.5
    assert run.data.tags["training_run_id"] == trained.info.run_id
    note = run.data.tags["mlflow.note.content"]
    assert f"[{trained.info.run_name}](#/experiments/{trained.info.experiment_id}/runs/{trained.info.run_id})" in note
    of_model = {metric.key: metric.value for metric in client.get_logged_model(model.model_id).metrics}
    assert of_model["val_intervals/auc_low95"] == 0.5
    assert [item.model_id for item in run.inputs.model_inputs] == [model.model_id]


def tracker_run(client: MlflowClient, experiment: str, prefix: str) -> str:
    (run_id,) = [run.info.run_id for run in runs(client, experiment) if run.info.run_name.startswith(prefix)]
    return run_id


def test_an_evaluation_of_weights_from_elsewhere_and_scores_of_an_earlier_run(
    build: Any, store: str, experiment: str, client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = tmp_path / "metrics.json"
    metrics.write_text('{"auc": 0.123}')
    tracker = MLflowTracker(
        tracking_uri=store, experiment_name=experiment, scores=metrics, part="val", training_run_id="0" * 32
    )
    build(val_handlers=[tracker]).evaluator.run()
    (run,) = runs(client, experiment)
    assert (run.info.status, "training_run_id" in run.data.tags) == ("FINISHED", False)
    assert run.data.metrics["val_auc"] != 0.123
    assert "The run goes on" not in caplog.text  # that a store lacks a run is no failure of the store


def test_runs_nest(build: Any, store: str, experiment: str, client: MlflowClient) -> None:
    build(tracked(store, experiment), epochs=1).trainer.run()
    (parent,) = runs(client, experiment)
    for _ in range(2):
        build(tracked(store, experiment, parent_run_id=parent.info.run_id), epochs=1).trainer.run()
    children = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert len(children) == 2
    assert "mlflow.parentRunId" not in parent.data.tags


def test_an_artifact_that_cannot_be_recorded_does_not_keep_the_run_running(
    build: Any, store: str, experiment: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: MlflowClient, *args: Any) -> None:
        raise OSError("the artifact store is full")

    monkeypatch.setattr(MlflowClient, "log_artifact", refuse)
    (tmp_path / "a.txt").write_text("x")
    build(tracked(store, experiment, artifacts=[tmp_path / "a.txt"]), epochs=1).trainer.run()
    assert [run.info.status for run in runs(client, experiment)] == ["FINISHED"]


def test_the_load_of_the_machine_on_request(
    build: Any, store: str, experiment: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Load:
        def collect_metrics(self) -> None:
            pass

        def aggregate_metrics(self) -> dict[str, float]:
            return {"cpu_utilization_percentage": 50.0}

        def clear_metrics(self) -> None:
            pass

    monkeypatch.setattr("medmamba_monai.handlers.system_metrics._mlflow_monitors", lambda: [Load()])
    monkeypatch.setattr("medmamba_monai.handlers.mlflow_tracker.require_psutil", lambda: None)
    build(tracked(store, experiment, system_metrics="true"), epochs=1).trainer.run()
    (run,) = runs(client, experiment)
    assert run.data.metrics["system/cpu_utilization_percentage"] == 50.0
    assert all(0 <= step < 60 for step, _ in history(client, run, "system/cpu_utilization_percentage"))


def test_without_psutil_a_training_does_not_start(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="psutil"):
        MLflowTracker(tracking_uri=store, system_metrics=True)
    MLflowTracker(tracking_uri=store, system_metrics=True, enabled=False)


def test_the_environment_goes_first_and_folders_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="neither output_dir nor tracking_uri"):
        MLflowTracker()
    with pytest.raises(ConfigError, match="no longer writes to"):
        MLflowTracker(tracking_uri="/tmp/mlruns")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert MLflowTracker(tracking_uri="sqlite:////tmp/a.db").tracking_uri == "http://elsewhere"
