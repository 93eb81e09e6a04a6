"""Processor seconds for a report with all bootstrap and DeLong intervals, of simulated predictions. Imports metrics."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics import report_of
from .machine import append_rows, describe

__all__ = ["add_arguments", "predictions", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 10])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/bootstrap.csv"))


def predictions(task: str, images: int, classes: int) -> tuple[Any, np.ndarray]:
    """Return simulated labels and probabilities (N, C), right more often than not."""
    rng = np.random.default_rng(0)
    if task == "multilabel":
        labels = (rng.random((images, classes)) < 0.2).astype(int)
        return labels, np.clip(0.3 * labels + 0.7 * rng.random((images, classes)), 0, 1)
    labels = rng.integers(0, classes, images)
    scores = rng.random((images, classes)) + 0.5 * np.eye(classes)[labels]
    return labels, scores / scores.sum(1, keepdims=True)


def run(arguments: argparse.Namespace) -> None:
    """Measure and write the table anew; processor time, so that other processes do not count."""
    rows = []
    for task in ("multiclass", "multilabel"):
        for classes in arguments.classes:
            labels, values = predictions(task, arguments.images, classes)
            names = [f"class {number}" for number in range(classes)]
            report_of(task)(labels[:100], values[:100], names)  # imports
            for unit, size in (("image", 1), ("group of 4", 4)):
                clusters = (np.arange(arguments.images) // size).tolist()
                began = time.process_time()
                report_of(task)(labels, values, names, clusters=clusters, resamples=arguments.resamples)
                seconds = time.process_time() - began
                print(f"{task}, {classes} classes, by {unit}: {seconds:.1f} s")
                row = {"task": task, "classes": classes, "images": arguments.images, "resampled": unit}
                row |= {"resamples": arguments.resamples, "processor_seconds": f"{seconds:.2f}"}
                rows.append({**row, **describe()})
    arguments.out.unlink(missing_ok=True)
    append_rows(arguments.out, rows)
