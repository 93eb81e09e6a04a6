"""Images a second that ``data check`` reads on one core, on 224 x 224 PNG files. Imports data."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from ..data.check import check_datalist
from ..data.phantom import write_phantoms
from .machine import append_rows, describe

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--per_class", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/data_check.csv"))


def run(arguments: argparse.Namespace) -> None:
    """Measure and write the table anew; processor time, so that other processes do not count."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(folder, arguments.per_class, size=224)
        for repeat in range(arguments.repeats):
            began = time.process_time()
            report = check_datalist(folder, progress=False)
            rate = report.images / (time.process_time() - began)
            rows.append(
                {"repeat": repeat, "images": report.images, "images_per_core_second": f"{rate:.0f}", **describe()}
            )
            print(f"{rate:.0f} images a second and core")
    arguments.out.unlink(missing_ok=True)
    append_rows(arguments.out, rows)
