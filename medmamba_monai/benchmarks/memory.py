"""Peak memory of this process: by /proc on Linux, getrusage on other Unix systems, psutil on Windows. No torch."""

from __future__ import annotations

import ctypes
import importlib
import sys
from pathlib import Path
from typing import Any

from ..errors import BackendError

__all__ = ["peak_megabytes", "reset_peak", "unmeasurable"]

_STATUS = Path("/proc/self/status")


def unmeasurable() -> str | None:
    """Why the peak cannot be read here; None when it can."""
    if _STATUS.exists() or _module("resource") is not None:
        return None
    if not sys.platform.startswith("win"):
        return f"nothing tells the peak memory of a process on {sys.platform}"
    return None if _module("psutil") is not None else "psutil is not installed; pip install psutil"


def peak_megabytes() -> float:
    """Most memory that was resident since the process began, or since :func:`reset_peak`, in MB of 2**20 bytes.

    Raises:
        BackendError: where it cannot be read; see :func:`unmeasurable`.
    """
    reason = unmeasurable()
    if reason is not None:
        raise BackendError(f"peak memory cannot be measured: {reason}")
    if _STATUS.exists():
        return _status_megabytes("VmHWM")
    resource = _module("resource")
    if resource is not None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak) / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes there, else kilobytes
    return float(_module("psutil").Process().memory_info().peak_wset) / (1 << 20)


def reset_peak() -> float:
    """Forget the peak so far where Linux lets us and return the memory in use; elsewhere return the peak so far.

    Raises:
        BackendError: where it cannot be read; see :func:`unmeasurable`.
    """
    if not _STATUS.exists():
        return peak_megabytes()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # what was freed and kept would hide what is used next
    if trim is not None:
        trim(0)
    try:
        _STATUS.with_name("clear_refs").write_text("5", encoding="ascii")
    except OSError:  # kernels and containers without it
        return peak_megabytes()
    return _status_megabytes("VmRSS")


def _module(name: str) -> Any:
    """A module that not every system has; None where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _status_megabytes(entry: str) -> float:
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{entry}:"))
