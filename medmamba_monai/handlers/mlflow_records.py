"""Turns configurations and metrics into what MLflow stores: flat names, short texts, single numbers."""

from __future__ import annotations

import logging
import platform
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from medmamba_monai.handlers.hooks import scalar

__all__ = ["allowed_name", "flat_metrics", "flat_params", "unique_run_name", "versions"]

LONGEST_VALUE = 6000
LONGEST_NAME = 250
MOST_ELEMENTS = 64

logger = logging.getLogger(__name__)


def flat_params(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as ``{"a.b": "text"}``; lists of plain values stay one entry.

    Example:
        >>> flat_params({"optimizer": {"lr": 0.1}, "size": [2, 3], "steps": [{"p": 1}]})
        {'optimizer.lr': '0.1', 'size': '[2, 3]', 'steps.0.p': '1'}
    """
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flat_params(value, f"{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            flat |= flat_params({str(index): item for index, item in enumerate(value)}, f"{name}.")
        else:
            flat[allowed_name(name)] = str(value)[:LONGEST_VALUE]
    return flat


def flat_metrics(metrics: Mapping[str, Any], already_warned: set[str] | None = None) -> dict[str, float]:
    """Numbers as they are; small vectors and matrices as ``name_0``, ``name_0_1``; the rest is left out.

    Args:
        metrics: an engine's metrics.
        already_warned: names whose omission has been told; added to.

    Example:
        >>> flat_metrics({"auc": 0.5, "confusion": torch.eye(2), "details": "text"})
        {'auc': 0.5, 'confusion_0_0': 1.0, 'confusion_0_1': 0.0, 'confusion_1_0': 0.0, 'confusion_1_1': 1.0}
    """
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        number = scalar(value)
        if number is not None:
            flat[allowed_name(name)] = number
            continue
        array = _small_array(value)
        if array is not None:
            entries = np.ndenumerate(array)
            flat |= {allowed_name("_".join([name, *map(str, index)])): float(entry) for index, entry in entries}
        elif already_warned is None or name not in already_warned:
            logger.warning("metric '%s' is no number and no small table; it is not tracked", name)
            if already_warned is not None:
                already_warned.add(name)
    return flat


def allowed_name(name: str) -> str:
    """A name that MLflow takes: letters, digits and ``_-./ :``; anything else becomes an underscore.

    Example:
        >>> allowed_name("network_def#drop_path_rate")
        'network_def_drop_path_rate'
    """
    return "".join(letter if letter.isalnum() or letter in "_-./ :" else "_" for letter in name)[:LONGEST_NAME]


def unique_run_name(prefix: str) -> str:
    """A name no other run has: prefix, UTC time, six random letters.

    Example:
        >>> unique_run_name("train") != unique_run_name("train")
        True
    """
    return f"{prefix}_{datetime.now(timezone.utc):%Y%m%d-%H%M%S}_{uuid.uuid4().hex[:6]}"


def versions(packages: Sequence[str] = ("torch", "monai", "pytorch-ignite", "mlflow")) -> dict[str, str]:
    """Versions of Python, this package and those it computes with.

    Example:
        >>> sorted(versions(["torch"]))
        ['version.medmamba_monai', 'version.python', 'version.torch']
    """
    from medmamba_monai import __version__

    found = {"version.python": platform.python_version(), "version.medmamba_monai": __version__}
    for package in packages:
        try:
            found[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            found[f"version.{package}"] = "unknown"
    return found


def _small_array(value: Any) -> np.ndarray[Any, np.dtype[Any]] | None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray | list | tuple):
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return array if 0 < array.size <= MOST_ELEMENTS else None
