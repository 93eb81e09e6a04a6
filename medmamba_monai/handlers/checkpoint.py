"""Keeps the best network and the training state on disk, replaced atomically. Used by configs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from torch import nn

from medmamba_monai.errors import CheckpointError
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder, first_nonfinite
from medmamba_monai.handlers.files import remove_orphans, require_writable
from medmamba_monai.handlers.hooks import is_rank_zero, register_resumable, resumables, run_last, unwrapped
from medmamba_monai.handlers.score import BestScore, key_score

__all__ = ["CHECKPOINT_NAME", "MODEL_NAME", "CheckpointHandler", "kept_network", "training_run"]

CHECKPOINT_NAME = "checkpoint.pt"
MODEL_NAME = "model.pt"
LAST_MODEL_NAME = "model_last.pt"
STATE_FORMAT = 1
RUN_ID = "mlflow_run_id"  # where the tracker notes it on the engine's state
ORDER_AMONG_LAST = 10  # after validation, before the tracker uploads what is written here

logger = logging.getLogger(__name__)


class SavesItself(Protocol):
    """The facts about a network that are written beside its weights, as ``networks.model_info.ModelInfo``."""

    def save(self, folder: Any, /) -> Any:
        """Write ``model.json`` into the folder."""
        ...


class CheckpointHandler:
    """Writes the best network when validation improves, and the state to resume from after epochs.

    Files in ``save_dir``: ``model.pt``, a plain state dict of the best network (the averaged one where
    ``ExponentialMovingAverage`` is on); ``model.json``, the facts about it; ``checkpoint.pt`` and the one
    before, ``checkpoint_previous.pt``, all a resumed run needs; ``checkpoints.json``, their digests. Only the
    process of rank 0 writes. Attached to the trainer; its place in the list of handlers does not matter.

    Args:
        save_dir: folder of the weights; created when training starts.
        lr_scheduler: saved and restored with the training state.
        evaluator: the validation engine whose key metric decides; without one the last network is kept.
        key_metric: which of its metrics; None takes the engine's key metric.
        mode: "max" or "min": which scores are better.
        model_info: written before the first weights; any object with ``save(folder)``.
        class_names: stored in the training state and compared when it is resumed.
        seed: stored in the training state and compared when it is resumed.
        save_last: also write ``model_last.pt`` with the state.
        interval: epochs between two states; the last epoch's is always written.
        network: default: the trainer's.
        optimizer: default: the trainer's.
        task: stored in the training state and compared when it is resumed.

    Raises:
        CheckpointError: the folder cannot be written, the disk is full, or weights are not finite.
        ConfigError: the evaluator has no usable key metric.

    Example:
        >>> CheckpointHandler("models", mode="min").best.mode
        'min'
    """

    def __init__(
        self,
        save_dir: str | Path,
        lr_scheduler: Any = None,
        evaluator: Engine | None = None,
        key_metric: str | None = None,
        mode: str = "max",
        model_info: SavesItself | None = None,
        class_names: Sequence[str] | None = None,
        seed: int | None = None,
        save_last: bool = False,
        interval: int = 1,
        network: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        task: str | None = None,
    ) -> None:
        self.folder = CheckpointFolder(Path(save_dir))
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.key_metric = key_metric
        self.best = BestScore(mode)
        self.model_info = model_info
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.task = task
        self.seed = None if seed is None else int(seed)
        self.save_last = save_last
        self.interval = interval
        self._network = network
        self._optimizer = optimizer
        self._metric_name = ""
        self._validating = False
        self._saved_iteration = -1
        self._info_saved = False

    def attach(self, engine: Engine) -> None:
        """Register with the trainer (and the evaluator)."""
        engine.state.checkpoint_handler = self
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.TERMINATE, self._terminated)
        run_last(engine, Events.EPOCH_COMPLETED, self._epoch_completed, ORDER_AMONG_LAST)
        run_last(engine, Events.COMPLETED, self._completed, ORDER_AMONG_LAST)
        register_resumable(engine, "best", self)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.EPOCH_STARTED, self._validation_started)
            self.evaluator.add_event_handler(
                Events.EPOCH_COMPLETED, lambda evaluator: self._validated(engine, evaluator)
            )

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"value": self.best.value, "epoch": self.best.epoch, "metric": self._metric_name}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the best score so far, lest the first validation after a resume win unopposed."""
        self.best.value, self.best.epoch = float(state["value"]), int(state["epoch"])
        self._metric_name = str(state["metric"])
        self._show_best()

    def network(self, engine: Engine) -> nn.Module:
        """The network in training, without wrappers."""
        return unwrapped(engine.network if self._network is None else self._network)

    def optimizer(self, engine: Engine) -> torch.optim.Optimizer:
        """The optimiser whose state is saved."""
        return engine.optimizer if self._optimizer is None else self._optimizer

    def training_state(self, engine: Engine) -> dict[str, Any]:
        """Everything a resumed run needs: tensors, numbers and strings."""
        parts = {name: part.state_dict() for name, part in resumables(engine).items()}
        return {
            "format": STATE_FORMAT,
            "network": self.network(engine).state_dict(),
            "optimizer": self.optimizer(engine).state_dict(),
            "lr_scheduler": None if self.lr_scheduler is None else self.lr_scheduler.state_dict(),
            "epoch": int(engine.state.epoch),
            "iteration": int(engine.state.iteration),
            "epoch_length": int(engine.state.epoch_length or 0),
            "parts": parts,
            "validation_pending": self._validating,
            "random": {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},
            "seed": self.seed,
            "class_names": self.class_names,
            "task": self.task,
            RUN_ID: getattr(engine.state, RUN_ID, None),
        }

    def _started(self, engine: Engine) -> None:
        self._saved_iteration = engine.state.iteration
        if is_rank_zero():
            require_writable(self.folder.path)
            if engine.state.iteration == 0 and (self.folder.path / CHECKPOINT_NAME).exists():
                logger.warning("the weights of an earlier training in %s will be replaced", self.folder.path)
            for orphan in remove_orphans(self.folder.path):
                logger.warning("removed %s, left by a process that was killed", self.folder.path / orphan)

    def _validation_started(self, evaluator: Engine) -> None:
        self._validating = True

    def _validated(self, engine: Engine, evaluator: Engine) -> None:
        self._validating = False
        self._metric_name, score = key_score(evaluator, self.key_metric, "CheckpointHandler")
        if self.best.update(score, int(engine.state.epoch)):
            self._save_model(engine, MODEL_NAME, {"metric": self._metric_name, "value": score})
        self._show_best()

    def _show_best(self) -> None:
        if self.evaluator is not None and self.best.epoch > 0:
            self.evaluator.state.best_metric = self.best.value
            self.evaluator.state.best_metric_epoch = self.best.epoch

    def _epoch_completed(self, engine: Engine) -> None:
        last = engine.state.epoch == engine.state.max_epochs or bool(engine.should_terminate)
        if last or engine.state.epoch % self.interval == 0:
            self._save_state(engine)

    def _terminated(self, engine: Engine) -> None:
        if self._saved_iteration != engine.state.iteration:
            self._save_state(engine)

    def _completed(self, engine: Engine) -> None:
        if self.best.epoch == 0 and getattr(engine.state, "stopped_by_signal", None) is None:
            if self.evaluator is not None:
                logger.warning("no validation gave a defined score: %s is the last network", MODEL_NAME)
            self._save_model(engine, MODEL_NAME, {})

    def _save_state(self, engine: Engine) -> None:
        if is_rank_zero():
            state = self.training_state(engine)
            self._require_finite({key: state[key] for key in ("network", "optimizer")}, CHECKPOINT_NAME)
            self.folder.save(CHECKPOINT_NAME, state, _facts(engine), keep_previous=True)
            if self.save_last:
                self._save_model(engine, LAST_MODEL_NAME, {})
        self._saved_iteration = engine.state.iteration

    def _save_model(self, engine: Engine, name: str, facts: Mapping[str, Any]) -> None:
        if not is_rank_zero():
            return
        weights = kept_network(engine, self.network(engine)).state_dict()
        weights = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        self._require_finite(weights, name)
        if self.model_info is not None and not self._info_saved:
            # First: weights without the facts that tell what they mean would be refused by every reader.
            self.model_info.save(self.folder.path)
            self._info_saved = True
        self.folder.save(name, weights, {**_facts(engine), **facts})

    def _require_finite(self, payload: Mapping[str, Any], name: str) -> None:
        if bad := first_nonfinite(payload):
            raise CheckpointError(
                f"'{bad}' holds NaN or Inf and is not saved; the file that was there before is untouched",
                where=str(self.folder.path / name),
                remedy="lower the learning rate or look for extreme values in the images, then resume",
            )


def kept_network(engine: Engine, network: nn.Module) -> nn.Module:
    """The network worth keeping: the averaged one where the trainer has one, else ``network``."""
    average = getattr(resumables(engine).get("ema"), "average", None)
    return average if isinstance(average, nn.Module) else network


def training_run(save_dir: str | Path) -> str | None:
    """MLflow's id of the run whose weights lie in a folder; None where it is not known.

    Raises:
        CheckpointError: the list of digests, which names it, is unreadable.
    """
    run_id = CheckpointFolder(Path(save_dir)).index().get(MODEL_NAME, {}).get(RUN_ID)
    return None if run_id is None else str(run_id)


def _facts(engine: Engine) -> dict[str, Any]:
    facts = {"epoch": int(engine.state.epoch), "iteration": int(engine.state.iteration)}
    run_id = getattr(engine.state, RUN_ID, None)
    return facts if run_id is None else {**facts, RUN_ID: str(run_id)}
