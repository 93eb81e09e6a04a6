"""Records a training or an evaluation as one MLflow run that ends with its true status. Used by configs."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ignite.engine import Engine, Events
from monai.engines import Trainer
from monai.handlers import MLFlowHandler
from monai.utils import path_to_uri

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers.hooks import (
    as_flag,
    batch_loss,
    is_rank_zero,
    on_exception,
    run_first,
    run_last,
)
from medmamba_monai.handlers.mlflow_client import (
    QuietClient,
    default_tracking_uri,
    local_database,
    usable_tracking_uri,
)
from medmamba_monai.handlers.mlflow_files import WrittenFiles
from medmamba_monai.handlers.mlflow_records import flat_metrics, flat_params, unique_run_name, versions
from medmamba_monai.handlers.mlflow_scores import flat_scores
from medmamba_monai.handlers.mlflow_stock import detach_stock
from medmamba_monai.handlers.system_metrics import SystemSampler, require_psutil

__all__ = ["MLflowTracker", "record_model"]

ORDER_AMONG_LAST = 20  # after the weights are written, which are uploaded
SECONDS_BETWEEN_SENDING = 10.0
MOST_KEPT_METRICS = 200_000
BATCH = 500  # MLflow accepts 1000 metrics and 100 parameters a call
PARAMS_BATCH = 100
LONGEST_ERROR = 5000
PARENT_TAG = "mlflow.parentRunId"
TRAINING_TAG = "training_run_id"
NOTE_TAG = "mlflow.note.content"  # what MLflow's pages show as the description

logger = logging.getLogger(__name__)


class RecordsItself(Protocol):
    """A trained model that MLflow can keep, as ``bundling.logged_model.LoggedModel``."""

    @property
    def files(self) -> Sequence[Path]:
        """Artifacts that need not be recorded once more where the model is."""
        ...

    def log(self, client: QuietClient, run_id: str, /) -> str | None:
        """Record it as an output of the run; its id, or None after a failure, which is told."""
        ...


class MLflowTracker:
    """Parameters, losses, learning rates, scores, files, the model and the final status of a run.

    Each run is a new one, whatever its name; only a resumed training continues its own, known by its id. A
    store that does not answer never ends or delays a training for long: one warning, and the metrics are sent
    when it is back. The handlers that ``python -m monai.bundle run --tracking mlflow`` adds are taken off at
    the start, so there is one run; asking for them switches this tracker on. Only the process of rank 0
    records.

    Attached to the trainer, or to an evaluator that runs by itself.

    Args:
        output_dir: the default store is ``<output_dir>/mlruns.db`` with artifacts in ``<output_dir>/mlruns``.
        enabled: False records nothing.
        tracking_uri: another store: ``sqlite:///…`` or the address of a server. The environment variable
            MLFLOW_TRACKING_URI goes before it.
        experiment_name: created where it does not exist.
        run_name: None gives a unique one.
        evaluator: the validation engine of a trainer.
        params: settings to record, nested as they like.
        class_names: recorded as a parameter.
        data_digest: digest of the datalist, recorded as a parameter.
        tags: recorded as tags.
        parent_run_id: run under which MLflow shows this one; None: none.
        artifacts: files and folders that are recorded at the end; one that is missing then is told.
        outputs: files and folders that are recorded as far as this run wrote them; the rest an earlier one left.
        scores: metrics.json of an evaluation, whose numbers become metrics (see ``flat_scores``).
        part: name of the data's part, the first word of those metrics.
        model: recorded by ``record_model``, with its files, when all that belongs to it has been written.
        training_run_id: for an evaluation, the run that trained the weights; where the store has it, the evaluation
            names it and its metrics also belong to the model recorded there.
        system_metrics: record the load of processor, memory, disk, network and GPU.
        timeout: seconds a server may take to answer.

    Raises:
        ConfigError: a store that MLflow cannot use, neither ``output_dir`` nor ``tracking_uri``, or psutil is missing
            for ``system_metrics``.

    Example:
        >>> MLflowTracker(enabled=False).enabled
        False
    """

    def __init__(
        self,
        output_dir: str | Path | None = None,
        enabled: bool | str = True,
        tracking_uri: str | None = None,
        experiment_name: str = "medmamba_monai",
        run_name: str | None = None,
        evaluator: Engine | None = None,
        params: Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        data_digest: str | None = None,
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
        artifacts: Sequence[str | Path] = (),
        outputs: Sequence[str | Path] = (),
        scores: str | Path | None = None,
        part: str = "test",
        model: RecordsItself | None = None,
        training_run_id: str | None = None,
        system_metrics: bool | str = False,
        timeout: float = 5.0,
    ) -> None:
        self.enabled = as_flag(enabled, "MLflowTracker.enabled")
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.tracking_uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri
        if self.tracking_uri is not None:
            self.tracking_uri = usable_tracking_uri(self.tracking_uri)
        elif self.output_dir is None and self.enabled:
            raise ConfigError("neither output_dir nor tracking_uri is given", where="MLflowTracker")
        self.experiment_name = experiment_name
        self.run_name = run_name
        self.evaluator = evaluator
        self.artifacts = [Path(path) for path in artifacts]
        self.outputs = list(outputs)
        self.scores = None if scores is None else Path(scores)
        self.part = part
        self.model = model
        self.training_run_id = training_run_id
        self.system_metrics = as_flag(system_metrics, "MLflowTracker.system_metrics")
        if self.enabled and self.system_metrics and is_rank_zero():
            require_psutil()
        self.timeout = timeout
        self.tags = dict(tags or {}) | ({PARENT_TAG: parent_run_id} if parent_run_id else {})
        extra = {"class_names": class_names, "data_digest": data_digest}
        self.params = dict(params or {}) | {name: value for name, value in extra.items() if value is not None}
        self.run_id: str | None = None
        self._client: QuietClient | None = None
        self._metrics: list[tuple[str, float, int, int, str | None]] = []
        self._written = WrittenFiles(())
        self._sampler: SystemSampler | None = None
        self._model_id: str | None = None
        self._finished_run: str | None = None
        self._uri_used: str | None = None
        self._losses: list[float] = []
        self._untracked: set[str] = set()
        self._sent_at = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer or an evaluator."""
        if not is_rank_zero():
            return
        engine.state.mlflow_tracker = self
        run_first(engine, Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        run_last(engine, Events.EPOCH_COMPLETED, self._epoch_completed, ORDER_AMONG_LAST)
        run_last(engine, Events.COMPLETED, self._completed, ORDER_AMONG_LAST)
        on_exception(engine, self._failed)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(
                Events.EPOCH_COMPLETED, lambda evaluator: self._validated(engine, evaluator)
            )

    def _started(self, engine: Engine) -> None:
        stock = [handler for each in (engine, self.evaluator) if each for handler in detach_stock(each)]
        if stock and not self.enabled:
            logger.info("--tracking mlflow switches MLflowTracker on")
            self.enabled = True
        if not self.enabled:
            return
        for handler in stock:
            self.artifacts += [Path(path) for path in handler.artifacts if path]
        self._uri_used = self._uri(stock)
        self._client = QuietClient(self._uri_used, self.timeout)
        self._written = WrittenFiles([*self.outputs, *([] if self.scores is None else [self.scores])])
        self.run_id = getattr(engine.state, "mlflow_run_id", None)
        self.params |= {"max_epochs": engine.state.max_epochs, "epoch_length": engine.state.epoch_length}
        if self.run_id is not None:
            run = self._client.find("get_run", self.run_id)
            if not self._client.paused and (run is None or run.info.lifecycle_stage != "active"):
                logger.warning("the run %s of this training is not in the store: a new one begins", self.run_id)
                self.run_id = engine.state.mlflow_run_id = None
        if self.run_id is not None:
            self._client.call("update_run", self.run_id, status="RUNNING")
            self._log_params()
            self._sample_system()
        else:
            self._create_run(engine)

    def _uri(self, stock: Sequence[MLFlowHandler]) -> str:
        if self.tracking_uri is not None:
            return self.tracking_uri
        if self.output_dir is not None:
            return default_tracking_uri(self.output_dir)
        return str(stock[0].client.tracking_uri)  # switched on by --tracking mlflow without settings of its own

    def _create_run(self, engine: Engine) -> None:
        """Begin the run, or try again later: ``_send`` comes back here while there is no run."""
        client = self._require_client()
        experiment = client.call("get_experiment_by_name", self.experiment_name)
        if experiment is None or experiment is True:
            location = _artifact_location(client.uri)
            experiment_id = client.call("create_experiment", self.experiment_name, artifact_location=location)
        else:
            experiment_id = experiment.experiment_id
        if experiment_id is None:
            return
        prefix = "train" if isinstance(engine, Trainer) else "evaluate"
        name = self.run_name or unique_run_name(prefix)
        run = client.call("create_run", experiment_id=experiment_id, run_name=name, tags=self.tags)
        if run is None:
            return
        self.run_id = engine.state.mlflow_run_id = str(run.info.run_id)
        self._log_params()
        self._link_training()
        self._sample_system()

    def _link_training(self) -> None:
        """Lead from an evaluation to the training and to its model; weights may also come from elsewhere."""
        client = self._require_client()
        training = None if self.training_run_id is None else client.find("get_run", self.training_run_id)
        if training is None:
            return
        client.call("set_tag", self.run_id, TRAINING_TAG, self.training_run_id)
        address = f"#/experiments/{training.info.experiment_id}/runs/{self.training_run_id}"
        note = f"Evaluation ({self.part}) of the weights of [{training.info.run_name}]({address})."
        client.call("set_tag", self.run_id, NOTE_TAG, note)
        models = training.outputs.model_outputs if training.outputs else []
        if models:
            from mlflow.entities import LoggedModelInput

            self._model_id = str(models[-1].model_id)
            client.call("log_inputs", self.run_id, models=[LoggedModelInput(self._model_id)])

    def _sample_system(self) -> None:
        if self.system_metrics and self._sampler is None:
            run = self._require_client().call("get_run", self.run_id)
            self._sampler = SystemSampler(None if run is None else run.info.start_time / 1000)
            self._sampler.start()

    def _log_params(self) -> None:
        from mlflow.entities import Param

        client = self._require_client()
        run = client.call("get_run", self.run_id)
        known = {} if run is None else run.data.params  # parameters of a run cannot be changed
        wanted = flat_params(self.params) | versions()
        new = [Param(name, value) for name, value in wanted.items() if name not in known]
        for start in range(0, len(new), PARAMS_BATCH):
            client.call("log_batch", self.run_id, params=new[start : start + PARAMS_BATCH])
        changed = {name: value for name, value in wanted.items() if known.get(name, value) != value}
        for name, value in changed.items():
            client.call("set_tag", self.run_id, f"resumed.{name}", value)

    def _iteration_completed(self, engine: Engine) -> None:
        if self._client is None or not isinstance(engine, Trainer):
            return
        loss = batch_loss(engine.state.output)
        if loss is not None:
            self._losses.append(loss)
            self._keep({"train_loss": loss}, engine.state.iteration)
        rates = [float(group["lr"]) for group in engine.optimizer.param_groups]
        names = ["learning_rate"] if len(set(rates)) == 1 else [f"learning_rate_{i}" for i in range(len(rates))]
        self._keep(dict(zip(names, rates, strict=False)), engine.state.iteration)
        if time.monotonic() - self._sent_at > SECONDS_BETWEEN_SENDING:
            self._send(engine)

    def _epoch_completed(self, engine: Engine) -> None:
        if self._client is None:
            return
        if self._losses:
            self._keep({"train_loss_epoch": sum(self._losses) / len(self._losses)}, engine.state.epoch)
            self._losses.clear()
        if self.scores is None:  # else they come with those of the whole report, once
            self._keep(flat_metrics(engine.state.metrics, self._untracked), engine.state.epoch)
        self._send(engine)

    def _validated(self, engine: Engine, evaluator: Engine) -> None:
        if self._client is not None:
            self._keep(flat_metrics(evaluator.state.metrics, self._untracked), engine.state.epoch)

    def _completed(self, engine: Engine) -> None:
        stopped = getattr(engine.state, "stopped_by_signal", None)
        self._finish(engine, "FINISHED" if stopped is None else "KILLED")

    def _failed(self, engine: Engine, error: BaseException) -> None:
        killed = isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)
        if self._client is not None and self.run_id is not None:
            text = f"{type(error).__name__}: {error}"
            self._client.call("set_tag", self.run_id, "error", text[:LONGEST_ERROR])
        self._finish(engine, "KILLED" if killed else "FAILED")

    def _finish(self, engine: Engine, status: str) -> None:
        if self._client is None:
            return
        self._client.try_again()
        if self._sampler is not None:
            self._sampler.stop()
        if self.scores is not None:
            self._keep_scores(engine)
        self._send(engine)
        if self.run_id is not None:
            if self.model is None or status != "FINISHED":
                self._keep_best()
                self._send(engine)
            self._record_files(status)
            self._client.try_again()  # a file that could not be recorded must not leave the run running for ever
            self._client.call("set_terminated", self.run_id, status)
            self._finished_run = self.run_id if status == "FINISHED" else None
        if self._metrics:
            logger.warning("%d metric values could not be sent to MLflow and are lost", len(self._metrics))
        self._client.close()
        self._metrics.clear()
        self._client = self._sampler = None
        self.run_id = self._model_id = None

    def record_model(self) -> None:
        """Record the model of a training that has finished, and what was written since; else do nothing."""
        if self.model is None or self._finished_run is None or self._uri_used is None:
            return
        self._client, self.run_id = QuietClient(self._uri_used, self.timeout), self._finished_run
        self._model_id = self.model.log(self._client, self.run_id)
        self._client.try_again()
        if self._model_id is None:
            for path in self.model.files:
                self._client.call("log_artifact", self.run_id, str(path))
        self._keep_best()
        self._send(None)
        self._record_changed()
        self._client.close()
        self._client = self.run_id = self._model_id = self._finished_run = None

    def _keep_scores(self, engine: Engine) -> None:
        """The engine's metrics, and those of the report where this run wrote it."""
        found = flat_metrics(engine.state.metrics, self._untracked)
        if self.scores in [file for file, _ in self._written.changed()]:
            found |= flat_scores(json.loads(self.scores.read_text(encoding="utf-8")), self.part)
        self._keep(found, 0)  # MLflow draws what has no steps as bars, all else as lines, here of one point

    def _keep_best(self) -> None:
        """What the kept weights reached; MLflow's tables show the last value of a metric, not the best."""
        state = None if self.evaluator is None else self.evaluator.state
        name, epoch = getattr(state, "key_metric_name", None), getattr(state, "best_metric_epoch", -1)
        if name is not None and epoch > 0:
            self._keep(flat_metrics({f"best_{name}": getattr(state, "best_metric", None)}, self._untracked), epoch)

    def _record_files(self, status: str) -> None:
        client = self._require_client()
        later = self.model.files if self.model is not None and status == "FINISHED" else []
        for path in dict.fromkeys(self.artifacts):
            if path.is_dir():
                client.call("log_artifacts", self.run_id, str(path), path.name)
            elif path.is_file():
                if path not in later:
                    client.call("log_artifact", self.run_id, str(path))
            elif status == "FINISHED":
                logger.warning("%s does not exist and is not recorded with the MLflow run", path)
        self._record_changed()

    def _record_changed(self) -> None:
        for path, folder in self._written.changed():
            if path not in self.artifacts:
                self._require_client().call("log_artifact", self.run_id, str(path), folder)
        self._written = WrittenFiles(self._written.places)

    def _keep(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._metrics += [(name, value, now, step, self._model_id) for name, value in metrics.items()]
        del self._metrics[:-MOST_KEPT_METRICS]

    def _send(self, engine: Engine | None) -> None:
        from mlflow.entities import Metric

        client = self._require_client()
        self._sent_at = time.monotonic()
        if self.run_id is None and engine is not None and not client.paused:
            self._create_run(engine)
        if self._sampler is not None:
            self._metrics += [(*sample, None) for sample in self._sampler.drain()]
        while self._metrics and self.run_id is not None:
            batch = [
                Metric(name, value, when, step, model_id=model_id, run_id=self.run_id if model_id else None)
                for name, value, when, step, model_id in self._metrics[:BATCH]
            ]
            if client.call("log_batch", self.run_id, metrics=batch) is None:
                return
            del self._metrics[:BATCH]

    def _require_client(self) -> QuietClient:
        if self._client is None:
            raise ConfigError("the tracker has not been started", where="MLflowTracker")
        return self._client


def record_model(trainer: Engine) -> None:
    """Have the trainer's tracker record the model, once all that belongs to it has been written.

    A step of its own after the training, because what is fitted to the best weights is no part of the training's run
    any more. Without a tracker, without a model and after a training that did not finish nothing happens.
    """
    tracker = getattr(trainer.state, "mlflow_tracker", None)
    if isinstance(tracker, MLflowTracker):
        tracker.record_model()


def _artifact_location(uri: str) -> str | None:
    """Beside a local database; a server decides for itself."""
    database = local_database(uri)
    return None if database is None else str(path_to_uri(database.parent / "mlruns"))
