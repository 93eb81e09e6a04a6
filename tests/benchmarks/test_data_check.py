"""The benchmark of the data check writes what it measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from medmamba_monai.benchmarks import data_check
from medmamba_monai.benchmarks.machine import read_rows


def test_table(tmp_path: Path) -> None:
    out = tmp_path / "data_check.csv"
    data_check.run(argparse.Namespace(per_class=6, repeats=2, out=out))
    rows = read_rows(out)
    assert [row["images"] for row in rows] == ["12", "12"]
    assert all(float(row["images_per_core_second"]) > 0 for row in rows)
