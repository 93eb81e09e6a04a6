"""The verb ``doctor``: versions, devices, and every scan backend with the reason it can or cannot run here.

Imported by medmamba_monai.cli when the verb is used.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys

import torch

from .errors import MedMambaError
from .ops import explain
from .ops.selective_scan import cpu, dispatch

__all__ = ["add_arguments", "report", "run"]

_PACKAGES = (
    "medmamba_monai",
    "torch",
    "monai",
    "pytorch-ignite",
    "mlflow",
    "numpy",
    "pydicom",
    "nibabel",
    "triton",
    "mamba-ssm",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no options."""


def run(arguments: argparse.Namespace) -> int:
    """Print the report; 0 when some backend runs on every device found, else 2."""
    text, healthy = report()
    sys.stdout.write(text + "\n")
    return 0 if healthy else 2


def report() -> tuple[str, bool]:
    """Return the text and whether every device found has a backend that passes its self-test."""
    lines = [f"Python {platform.python_version()} on {platform.platform()}, {platform.machine()}"]
    lines += [f"  {name:<15} {_version(name)}" for name in _PACKAGES]
    lines.append(
        f"CPU: {os.cpu_count()} cores, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    )
    lines.append(f"C library: {_instruction_sets()}")
    variable = os.environ.get(dispatch.ENVIRONMENT_VARIABLE)
    if variable:
        lines.append(f"{dispatch.ENVIRONMENT_VARIABLE}={variable}")
    healthy = True
    for device, names in _devices().items():
        lines.append(f"Scan backends on {device}{''.join(f', {name}' for name in names)}:")
        try:
            lines += [f"  {line}" for line in explain(device).splitlines()]
        except MedMambaError as error:
            healthy = False
            lines.append(f"  {error}")
    lines.append("Compiled backends listed as usable reproduced the reference in this process.")
    return "\n".join(lines), healthy


def _instruction_sets() -> str:
    """The instruction set the C library uses, the others that run here, and those that were built but do not."""
    reason = cpu.unavailable(torch.device("cpu"))
    if reason is not None:
        return reason
    try:
        runs = cpu.variants()
        line = f"uses {cpu.variant()}, of {', '.join(runs)}"
        idle = [name for name in cpu.built() if name not in runs]
    except MedMambaError as error:
        return str(error)
    if idle:
        line += f" ({', '.join(idle)}: built, not supported by this processor)"
    return f"{line}; {cpu.SIMD_VARIABLE} names another"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> dict[str, list[str]]:
    """Kinds of devices found, and the names of those of each kind; the processor is described on a line of its own."""
    devices: dict[str, list[str]] = {"cpu": []}
    if torch.cuda.is_available():  # also AMD's GPUs, by ROCm
        devices["cuda"] = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if torch.xpu.is_available():
        devices["xpu"] = [torch.xpu.get_device_name(number) for number in range(torch.xpu.device_count())]
    if torch.backends.mps.is_available():
        devices["mps"] = [torch.backends.mps.get_name()]
    return devices
