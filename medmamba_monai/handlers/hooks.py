"""What the handlers share about engines: order of events, exceptions, processes, and the states to resume.

The engine's own ``state`` is the notice board: handlers are built from a config, where the trainer's handlers
cannot refer to the trainer, so they find each other there once they are attached.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import nn

from medmamba_monai.errors import ConfigError

__all__ = [
    "Resumable",
    "any_rank",
    "as_flag",
    "batch_loss",
    "is_rank_zero",
    "on_exception",
    "process_count",
    "register_resumable",
    "resumables",
    "run_first",
    "run_last",
    "scalar",
    "unwrapped",
]


class Resumable(Protocol):
    """A handler whose state belongs into the training state."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state that ``state_dict`` gave."""
        ...


def register_resumable(engine: Engine, name: str, part: Resumable) -> None:
    """Have ``part`` saved and restored with the training state under ``name``."""
    resumables(engine)[name] = part


def resumables(engine: Engine) -> dict[str, Resumable]:
    """The registered parts by name."""
    if not hasattr(engine.state, "resumables"):
        engine.state.resumables = {}
    parts: dict[str, Resumable] = engine.state.resumables
    return parts


def run_first(engine: Engine, event: Events, handler: Callable[..., None]) -> None:
    """Add a handler that runs before those already registered."""
    engine.add_event_handler(event, handler)
    registered = engine._event_handlers[event]
    registered.insert(0, registered.pop())


def run_last(engine: Engine, event: Events, handler: Callable[..., None], order: int) -> None:
    """Add a handler that runs after all those of the configuration, wherever it stands there.

    Args:
        engine: the trainer, before its run.
        event: any event after ``STARTED``.
        handler: called with the engine.
        order: handlers of one event that come last run by increasing order.
    """
    waiting: list[tuple[int, Events, Callable[..., None]]] | None
    waiting = getattr(engine.state, "handlers_to_run_last", None)
    if waiting is None:
        waiting = engine.state.handlers_to_run_last = []
        engine.add_event_handler(Events.STARTED, _add_waiting)
    waiting.append((order, event, handler))


def _add_waiting(engine: Engine) -> None:
    waiting = engine.state.handlers_to_run_last
    for _, event, handler in sorted(waiting, key=lambda entry: entry[0]):
        engine.add_event_handler(event, handler)
    waiting.clear()


def on_exception(engine: Engine, callback: Callable[[Engine, BaseException], None]) -> None:
    """Call back when a run ends by an exception, which then goes on to the caller.

    Ignite stops at the first handler that raises, and swallows the exception if none does; it fires the event
    twice for an error inside an epoch. Here every callback is called once and nothing is swallowed.
    """
    callbacks: list[Callable[[Engine, BaseException], None]] | None
    callbacks = getattr(engine.state, "exception_callbacks", None)
    if callbacks is None:
        callbacks = engine.state.exception_callbacks = []
        run_first(engine, Events.EXCEPTION_RAISED, _dispatch_exception)
    callbacks.append(callback)


def _dispatch_exception(engine: Engine, error: BaseException) -> None:
    if getattr(engine.state, "dispatched_exception", None) is not error:
        engine.state.dispatched_exception = error
        for callback in engine.state.exception_callbacks:
            callback(engine, error)
    if len(engine._event_handlers[Events.EXCEPTION_RAISED]) == 1:
        raise error  # otherwise another handler follows, MONAI's StatsHandler for one, which raises


def is_rank_zero() -> bool:
    """Whether this process is the one that writes; a torchrun process knows before the group exists."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """Processes that train together; 1 without a process group.

    Example:
        >>> process_count()
        1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def any_rank(flag: bool, device: torch.device | str | None) -> bool:
    """Whether the flag is set on any process; all of them must ask at the same point."""
    if process_count() == 1:
        return flag
    common = torch.tensor(int(flag), device=device)
    dist.all_reduce(common, op=dist.ReduceOp.MAX)
    return bool(common.item())


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel and torch.compile, whose parameter names carry no prefix.

    Example:
        >>> type(unwrapped(nn.DataParallel(nn.Flatten()))).__name__
        'Flatten'
    """
    while True:
        if isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            return network


def scalar(value: Any) -> float | None:
    """A metric as a Python float (weights-only loading refuses NumPy's); None if it is no number.

    Example:
        >>> scalar(torch.tensor(0.5)), scalar(torch.ones(2)), scalar("0.5")
        (0.5, None, None)
    """
    if isinstance(value, torch.Tensor):
        return float(value.item()) if value.numel() == 1 else None
    if isinstance(value, str | bytes) or not hasattr(value, "__float__") or getattr(value, "ndim", 0) != 0:
        return None
    return float(value)


def batch_loss(output: Any) -> float | None:
    """The loss in an engine's output, a dictionary or, decollated, a list of them; None without one.

    Example:
        >>> batch_loss([{"loss": torch.tensor(0.25)}, {"loss": torch.tensor(0.25)}])
        0.25
    """
    if isinstance(output, Sequence) and not isinstance(output, str) and output:
        output = output[0]
    return scalar(output["loss"]) if isinstance(output, Mapping) and "loss" in output else None


def as_flag(value: bool | str | None, name: str) -> bool:
    """A switch as a config or a command line gives it: the latter gives the text "false".

    Raises:
        ConfigError: neither true nor false.

    Example:
        >>> as_flag("false", "mlflow"), as_flag(True, "mlflow"), as_flag(None, "mlflow")
        (False, True, False)
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ConfigError(f"{name}={value!r} is neither true nor false")
