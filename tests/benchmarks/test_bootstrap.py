"""The benchmark of intervals writes its table, also with few images."""

from __future__ import annotations

import argparse
from pathlib import Path

from medmamba_monai.benchmarks import bootstrap
from medmamba_monai.benchmarks.machine import read_rows


def test_the_table(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    bootstrap.add_arguments(parser)
    table = tmp_path / "bootstrap.csv"
    options = ["--images", "200", "--resamples", "20", "--classes", "2", "--out", str(table)]
    bootstrap.run(parser.parse_args(options))
    bootstrap.run(parser.parse_args(options))
    rows = read_rows(table)
    assert [(row["task"], row["resampled"]) for row in rows] == [
        (task, unit) for task in ("multiclass", "multilabel") for unit in ("image", "group of 4")
    ]
    assert all(float(row["processor_seconds"]) >= 0 and row["versions"] for row in rows)
