"""Which backend runs a scan, and why the others do not. Imports the backends, each only when it is looked at."""

from __future__ import annotations

import importlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import cast

import torch

from ...errors import BackendError
from .contract import ScanBackend

__all__ = ["BACKENDS", "ENVIRONMENT_VARIABLE", "explain", "load", "resolve", "unavailable"]

ENVIRONMENT_VARIABLE = "MEDMAMBA_SCAN_BACKEND"

# Name -> what it is, in order of preference: the first that can run is taken.
BACKENDS = {
    "triton": "Triton kernels for GPUs",
    "cpu": "C kernel with SIMD instructions",
    "portable": "plain PyTorch, any device",
    "mamba_ssm": "mamba-ssm's CUDA kernel, only when named",
    "reference": "readable loop, only when named",
}
_ONLY_WHEN_NAMED = ("mamba_ssm", "reference")


def load(name: str) -> ScanBackend:
    """Return a backend's module.

    Raises:
        BackendError: for a name that does not exist.
    """
    if name not in BACKENDS:
        raise BackendError(f"unknown scan backend {name!r}", remedy=f"use one of {', '.join(BACKENDS)}, or None")
    return cast(ScanBackend, importlib.import_module(f".{name}", __package__))


@lru_cache(maxsize=64)
def unavailable(name: str, device_type: str) -> str | None:
    """Why a backend cannot run on a kind of device; None when it can. Asked once a process.

    A compiled backend first has to reproduce the reference on small problems. It does so in a thread of its own, where
    neither autograd nor a tracing mode of the caller's reaches.
    """
    module = load(name)
    reason = module.unavailable(torch.device(device_type))
    if reason is None and hasattr(module, "self_test"):
        with ThreadPoolExecutor(max_workers=1) as executor:
            reason = executor.submit(module.self_test).result()
    return reason


@lru_cache(maxsize=1)
def _warn_portable(device_type: str, reason: str) -> None:
    warnings.warn(
        f"medmamba_monai: scanning on {device_type} with the portable path, several times slower ({reason}). "
        "`python -m medmamba_monai doctor` shows every backend.",
        RuntimeWarning,
        stacklevel=4,
    )


@lru_cache(maxsize=64)
def _first_usable(device_type: str) -> str:
    reasons: list[str] = []
    for name in BACKENDS:
        if name in _ONLY_WHEN_NAMED:
            continue
        reason = unavailable(name, device_type)
        if reason is None:
            if name == "portable" and device_type in ("cpu", "cuda"):
                _warn_portable(device_type, "; ".join(reasons))
            return name
        reasons.append(f"{name}: {reason}")
    raise BackendError(f"no scan backend runs on {device_type}", where="; ".join(reasons))


def resolve(device_type: str, backend: str | None = None) -> str:
    """Return the name of the backend to use.

    Args:
        device_type: "cpu", "cuda", "mps", ...
        backend: a name, or None for the environment variable ``MEDMAMBA_SCAN_BACKEND`` and, without it, the first
            backend of :data:`BACKENDS` that can run.

    Raises:
        BackendError: when the backend named cannot run here; another is never taken in its place.

    Example:
        >>> resolve("cpu", "portable")
        'portable'
    """
    name = backend or os.environ.get(ENVIRONMENT_VARIABLE)
    if not name:
        return _first_usable(device_type)
    reason = unavailable(name, device_type)
    if reason is not None:
        raise BackendError(f"scan backend {name!r} cannot run on {device_type}: {reason}")
    return name


def explain(device_type: str = "cpu") -> str:
    """Return a line for each backend: whether it can run on a kind of device, or why not, and which one is chosen."""
    chosen = resolve(device_type)
    lines = []
    for name, meaning in BACKENDS.items():
        reason = unavailable(name, device_type)
        state = "chosen" if name == chosen else "available" if reason is None else f"not available: {reason}"
        lines.append(f"{name:<10} {meaning}: {state}")
    return "\n".join(lines)
