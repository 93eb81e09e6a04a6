"""MONAI's own MLflow handlers, added by ``--tracking mlflow``: the tracker takes them off and records instead."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from monai.handlers import MLFlowHandler

__all__ = ["detach_stock"]


def detach_stock(engine: Engine) -> list[MLFlowHandler]:
    """Take MONAI's own MLflow handlers off an engine, also out of the event that is just being handled.

    Args:
        engine: a trainer or an evaluator.

    Returns:
        The handlers, which do nothing any more.
    """
    stock: list[MLFlowHandler] = []
    for handlers in engine._event_handlers.values():
        owners = [getattr(_original(handler), "__self__", None) for handler, _, _ in handlers]
        stock += [owner for owner in owners if isinstance(owner, MLFlowHandler) and owner not in stock]
        handlers[:] = [
            entry for entry, owner in zip(handlers, owners, strict=True) if not isinstance(owner, MLFlowHandler)
        ]
    return stock


def _original(handler: Any) -> Any:
    """The handler a filtered event wraps."""
    parent = getattr(handler, "_parent", None)
    return handler if parent is None else parent()
