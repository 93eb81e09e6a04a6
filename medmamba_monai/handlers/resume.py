"""Goes on with an interrupted training exactly where it stopped. Called from a config's ``initialize``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.handlers.checkpoint import CHECKPOINT_NAME, STATE_FORMAT, CheckpointHandler
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder, previous_name
from medmamba_monai.handlers.early_stopping import EarlyStopping
from medmamba_monai.handlers.hooks import resumables

__all__ = ["RemainingBatches", "load_network", "resume_training"]

logger = logging.getLogger(__name__)


def resume_training(trainer: Engine, resume: bool | str | Path | None = True) -> int | None:
    """Restore network, optimiser, schedule, epoch, best score, early stop, averages and MLflow run.

    To be called before ``trainer.run()``. A run resumed at the end of an epoch, or within one by a single
    process, then computes what the uninterrupted run would have computed, where ``ReproducibleEpochs`` is
    among the handlers.

    Args:
        trainer: an engine with a ``CheckpointHandler``.
        resume: False or None does nothing; True reads the handler's folder; a path reads that file or folder.

    Returns:
        The epoch that was reached, or None if nothing was done.

    Raises:
        CheckpointError: there is no state, it is damaged, belongs to another training, or the training is
            finished.
        ConfigError: the trainer has no ``CheckpointHandler``.

    Example:
        >>> resume_training(Engine(lambda engine, batch: None), resume=False) is None
        True
    """
    if resume is None or str(resume).lower() in ("false", ""):
        return None
    handler = getattr(trainer.state, "checkpoint_handler", None)
    if not isinstance(handler, CheckpointHandler):
        raise ConfigError("resume needs a CheckpointHandler among the trainer's handlers", where="train#handlers")
    own = str(resume).lower() == "true"
    path = handler.folder.path if own else Path(str(resume))
    state, source = _load_state(path / CHECKPOINT_NAME if own or path.is_dir() else path)
    _check_fits(state, trainer, handler, source)
    load_network(handler.network(trainer), state["network"], source)
    _load_optimizer(handler, trainer, state, source)
    for name, part in resumables(trainer).items():
        if name in state["parts"]:
            part.load_state_dict(state["parts"][name])
        else:
            logger.warning("%s holds nothing for '%s', which starts anew", source, name)
    _refuse_after_early_stop(trainer, source)
    trainer.state.mlflow_run_id = state["mlflow_run_id"]
    _go_on_from(trainer, handler, state)
    logger.info("resuming from %s: epoch %d, iteration %d", source, trainer.state.epoch, trainer.state.iteration)
    return int(trainer.state.epoch)


class RemainingBatches:
    """A data loader whose first pass leaves out the batches an interrupted epoch has already used.

    They are drawn and thrown away, so that random transforms are where they were.

    Args:
        loader: the training loader.
        used: number of batches to leave out, once.
        random: generator states to take up after that, as ``CheckpointHandler.training_state`` stores them.

    Example:
        >>> batches = RemainingBatches([1, 2, 3], used=2)
        >>> list(batches), list(batches)
        ([3], [1, 2, 3])
    """

    def __init__(self, loader: Any, used: int, random: Mapping[str, Any] | None = None) -> None:
        self.loader = loader
        self._used = used
        self._random = random

    def __len__(self) -> int:
        return len(self.loader) if isinstance(self.loader, Sized) else 0

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        used, self._used = self._used, 0
        if used:
            for _ in range(used):
                next(batches, None)
            if self._random is not None:
                torch.set_rng_state(self._random["torch"])
                if self._random["cuda"] and torch.cuda.is_available():
                    torch.cuda.set_rng_state_all(self._random["cuda"])
        yield from batches


def load_network(network: nn.Module, weights: Mapping[str, Any], source: Path) -> None:
    """Load a state dict whose names and shapes must match exactly.

    Raises:
        CheckpointError: they do not; the first few differences are named.
    """
    own = network.state_dict()
    differences = [f"'{name}' is missing" for name in own if name not in weights]
    differences += [f"'{name}' is unknown to the network" for name in weights if name not in own]
    differences += [
        f"'{name}' is {tuple(weights[name].shape)}, the network's is {tuple(own[name].shape)}"
        for name in own
        if name in weights and tuple(getattr(weights[name], "shape", ())) != tuple(own[name].shape)
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise CheckpointError(
            f"the weights belong to another network: {'; '.join(differences[:3])}{more}",
            where=str(source),
            remedy="use the network_def and the classes these weights were trained with",
        )
    network.load_state_dict(dict(weights))


def _load_state(path: Path) -> tuple[dict[str, Any], Path]:
    """The state in ``path``, or, loudly, the one before it where that one is damaged."""
    folder = CheckpointFolder(path.parent)
    older = previous_name(path.name)
    if not path.is_file() and not (path.parent / older).is_file():
        raise CheckpointError(
            "resume was asked for, but there is no training state",
            where=str(path),
            remedy="train without resume first, or give resume the path of a checkpoint.pt",
        )
    try:
        return folder.load(path.name), path
    except CheckpointError as error:
        if not (path.parent / older).is_file():
            raise
        logger.error("%s. Falling back to the state before it, %s: some epochs are trained again", error, older)
        return folder.load(older), path.parent / older


def _check_fits(state: Mapping[str, Any], trainer: Engine, handler: CheckpointHandler, source: Path) -> None:
    if state.get("format") != STATE_FORMAT:
        raise CheckpointError(
            "this is not a training state of this version",
            where=str(source),
            remedy=f"give resume a {CHECKPOINT_NAME}; weights alone (model.pt) cannot be resumed",
        )
    if None not in (handler.class_names, state["class_names"]) and handler.class_names != state["class_names"]:
        raise CheckpointError(
            f"it was trained for the classes {state['class_names']}, this run has {handler.class_names}",
            where=str(source),
            remedy="resume with the same data, or start a new training",
        )
    if None not in (handler.task, state.get("task")) and handler.task != state["task"]:
        raise CheckpointError(
            f"it was trained for task {state['task']}, this run has {handler.task}",
            where=str(source),
            remedy="resume with the same task, or start a new training",
        )
    if state["epoch_length"] != trainer.state.epoch_length:
        raise CheckpointError(
            f"an epoch had {state['epoch_length']} iterations, now it has {trainer.state.epoch_length}",
            where=str(source),
            remedy="resume with the same training set, batch_size and number of processes",
        )
    if state["iteration"] >= state["epoch_length"] * trainer.state.max_epochs:
        raise CheckpointError(
            f"the training is finished: {state['epoch']} of {trainer.state.max_epochs} epochs are done",
            where=str(source),
            remedy="raise epochs to train longer, or train without resume to begin anew",
        )
    if None not in (handler.seed, state["seed"]) and handler.seed != state["seed"]:
        logger.warning("%s was trained with seed %s, this run has %s", source, state["seed"], handler.seed)


def _refuse_after_early_stop(trainer: Engine, source: Path) -> None:
    stopper = resumables(trainer).get("early_stopping")
    if isinstance(stopper, EarlyStopping) and stopper.waited >= stopper.patience:
        raise CheckpointError(
            f"the training is finished: it was stopped early after {stopper.waited} validations without a gain",
            where=str(source),
            remedy="raise the patience of early stopping to train longer, or train without resume to begin anew",
        )


def _load_optimizer(handler: CheckpointHandler, trainer: Engine, state: Mapping[str, Any], source: Path) -> None:
    try:
        handler.optimizer(trainer).load_state_dict(state["optimizer"])
        if handler.lr_scheduler is not None and state["lr_scheduler"] is not None:
            handler.lr_scheduler.load_state_dict(state["lr_scheduler"])
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"the optimiser's state does not fit: {error}",
            where=str(source),
            remedy="resume with the same optimiser and network, or start a new training",
        ) from error


def _go_on_from(trainer: Engine, handler: CheckpointHandler, state: Mapping[str, Any]) -> None:
    length = state["epoch_length"]
    trainer.state.iteration = state["iteration"]
    trainer.state.epoch, used = divmod(state["iteration"], length)
    if used:
        trainer.data_loader = RemainingBatches(trainer.data_loader, used, state["random"])
    if state["validation_pending"] and handler.evaluator is not None and not used:
        evaluator = handler.evaluator
        trainer.add_event_handler(Events.STARTED, lambda engine: evaluator.run(engine.state.epoch))
