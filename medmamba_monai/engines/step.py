"""One training and one evaluation iteration for MONAI's supervised engines.

They replace the engines' own iteration where that falls short: mixed precision on any device (MONAI's is CUDA
with a gradient scaler), gradient clipping, and a refusal to learn from NaN. Configs name them; nothing below
imports them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

from medmamba_monai.engines.numerics import BufferSnapshot, NumericsError, all_ranks_agree, batch_files
from medmamba_monai.engines.precision import autocast, is_on
from medmamba_monai.errors import ConfigError

__all__ = ["EvaluationStep", "TrainingStep"]

logger = logging.getLogger(__name__)


class TrainingStep:
    """``iteration_update`` of ``monai.engines.SupervisedTrainer``: forward, loss, backward, clip, step.

    The output dictionary and the fired ``IterationEvents`` are MONAI's, so its handlers keep working. The
    network gets plain tensors (B, C, *spatial); predictions are returned in float32 whatever the arithmetic
    was.

    A loss or gradient that is not finite changes nothing: neither weights nor running statistics. With
    several processes all of them skip together.

    Args:
        amp: compute in bfloat16 where the device supports it; there is no gradient scaler, bfloat16 needs
            none.
        clip_norm: largest Euclidean norm of the whole gradient; None does not clip.
        max_nonfinite_steps: so many refused steps in a row raise ``NumericsError``.
        file_key: key of the batch that holds the file names a message should give.

    Raises:
        ConfigError: ``amp`` on a device without bfloat16, or the trainer asks for its own amp or
            accumulation.
        NumericsError: see ``max_nonfinite_steps``.

    Example:
        >>> TrainingStep(clip_norm=0.0)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        medmamba_monai.errors.ConfigError: clip_norm=0.0 is not positive...
    """

    def __init__(
        self,
        amp: bool | str = False,
        clip_norm: float | None = 1.0,
        max_nonfinite_steps: int = 3,
        file_key: str = "file",
    ) -> None:
        if clip_norm is not None and not clip_norm > 0:
            raise ConfigError(f"clip_norm={clip_norm} is not positive", remedy="give a positive norm, or null for none")
        if max_nonfinite_steps < 1:
            raise ConfigError(f"max_nonfinite_steps={max_nonfinite_steps} is less than 1")
        self.amp = is_on(amp)
        self.clip_norm = float("inf") if clip_norm is None else float(clip_norm)
        self.max_nonfinite_steps = int(max_nonfinite_steps)
        self.file_key = file_key
        self.refused_in_a_row = 0
        self._snapshot: BufferSnapshot | None = None

    def __call__(self, engine: SupervisedTrainer, batchdata: Mapping[str, Any]) -> dict[str, Any]:
        """Run one iteration; see the class."""
        if self._snapshot is None:
            _check_trainer(engine)
            self._snapshot = BufferSnapshot(engine.network)
        inputs, targets, args, kwargs = _prepare(engine, batchdata)
        engine.state.output = output = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: targets}
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        self._snapshot.take()
        with autocast(engine.state.device, self.amp):
            prediction = engine.inferer(_plain(inputs), engine.network, *args, **kwargs)
            output[CommonKeys.PRED] = prediction.float()
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            output[CommonKeys.LOSS] = engine.loss_function(output[CommonKeys.PRED], _plain(targets)).mean()
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        output[CommonKeys.LOSS].backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self._step_or_refuse(engine, output[CommonKeys.LOSS], batchdata)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        result: dict[str, Any] = engine.state.output
        return result

    def _step_or_refuse(self, engine: SupervisedTrainer, loss: torch.Tensor, batch: Mapping[str, Any]) -> None:
        norm = torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.clip_norm)
        finite = bool((torch.isfinite(loss.detach()) & torch.isfinite(norm)).item())
        if all_ranks_agree(finite, loss.device):
            engine.optimizer.step()
            self.refused_in_a_row = 0
            return
        if self._snapshot is not None:
            self._snapshot.restore()
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        self.refused_in_a_row += 1
        files = ", ".join(batch_files(batch, self.file_key)) or "not named by the batch"
        where = f"epoch {engine.state.epoch}, iteration {engine.state.iteration}"
        what = f"loss {loss.item():g}, gradient norm {norm.item():g}; files of this batch: {files}"
        if self.refused_in_a_row >= self.max_nonfinite_steps:
            raise NumericsError(
                f"not finite {self.refused_in_a_row} times in a row: {what}",
                where=where,
                remedy="look for extreme values in these files, lower the learning rate, or switch amp off",
            )
        logger.warning("%s: not finite, the step is not taken: %s", where, what)


class EvaluationStep:
    """``iteration_update`` of ``monai.engines.SupervisedEvaluator``: a forward pass without gradients.

    Args:
        amp: compute in bfloat16 where the device supports it; predictions are returned in float32.

    Raises:
        ConfigError: ``amp`` on a device without bfloat16, or the evaluator asks for its own amp.

    Example:
        >>> EvaluationStep().amp
        False
    """

    def __init__(self, amp: bool | str = False) -> None:
        self.amp = is_on(amp)

    def __call__(self, engine: SupervisedEvaluator, batchdata: Mapping[str, Any]) -> dict[str, Any]:
        """Run one iteration; see the class."""
        if engine.amp:
            raise _own_amp_error("evaluator", "EvaluationStep")
        inputs, targets, args, kwargs = _prepare(engine, batchdata)
        engine.state.output = output = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: targets}
        with engine.mode(engine.network), autocast(engine.state.device, self.amp):
            output[CommonKeys.PRED] = engine.inferer(_plain(inputs), engine.network, *args, **kwargs).float()
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        result: dict[str, Any] = engine.state.output
        return result


def _prepare(
    engine: SupervisedTrainer | SupervisedEvaluator, batchdata: Mapping[str, Any] | None
) -> tuple[Any, Any, tuple[Any, ...], dict[str, Any]]:
    if batchdata is None:
        raise ConfigError("the data loader gave no batch", remedy="give the engine a data loader of dictionaries")
    batch = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
    if len(batch) == 2:
        return batch[0], batch[1], (), {}
    inputs, targets, args, kwargs = batch
    return inputs, targets, args, kwargs


def _plain(value: Any) -> Any:
    """A tensor without metadata: subclass dispatch costs time, and custom kernels do not know it."""
    return value.as_tensor() if isinstance(value, MetaTensor) else value


def _own_amp_error(engine: str, step: str) -> ConfigError:
    return ConfigError(
        f"the {engine} has amp=True of its own, which is CUDA only and scales gradients",
        remedy=f"leave the {engine}'s amp out and set amp on {step}",
    )


def _check_trainer(engine: SupervisedTrainer) -> None:
    if engine.amp:
        raise _own_amp_error("trainer", "TrainingStep")
    if getattr(engine, "accumulation_steps", 1) != 1:
        raise ConfigError(
            f"accumulation_steps={engine.accumulation_steps} is not supported by TrainingStep",
            remedy="leave accumulation_steps out and choose a larger batch_size",
        )
