"""What a measurement was made on, and tables of measurements as CSV files. Imports torch."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

import medmamba_monai

__all__ = ["append_rows", "describe", "read_rows"]


def describe() -> dict[str, str]:
    """Return processor, threads, GPU and versions, as columns of a table."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": f"{_processor()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
        "gpu": gpu,
        "versions": f"medmamba_monai {medmamba_monai.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a table; an absent file is an empty one."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Add rows to a table, with a header where the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)
