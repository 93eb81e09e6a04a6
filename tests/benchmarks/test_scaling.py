"""The scaling benchmark: slopes, and one small size end to end."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from medmamba_monai.benchmarks import memory, scaling
from medmamba_monai.benchmarks.machine import read_rows


def test_slope_of_a_square() -> None:
    points = [scaling.Point(2, s, s * s, 0.5 * (s * s) ** 2, 0.0) for s in (8, 16, 32)]
    assert scaling.slope(points) == pytest.approx(2.0)


@pytest.mark.slow
def test_table_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_SIDES", {2: (256, 288), 3: (32,)})
    out = tmp_path / "scaling.csv"
    scaling.run(argparse.Namespace(preset="nano", threads=1, seconds=0.0, out=out))
    rows = read_rows(out)
    assert [(row["spatial_dims"], row["side"]) for row in rows] == [("2", "256"), ("2", "288"), ("3", "32")]
    assert all(float(row["milliseconds"]) > 0 for row in rows)
    assert all(float(row["megabytes"]) > 1 for row in rows)
    assert (tmp_path / "scaling.png").stat().st_size > 5000


def test_without_a_peak_the_rest_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "unmeasurable", lambda: "psutil is not installed")
    point = scaling.measure_size("nano", 2, 64, torch.get_num_threads(), 0.0)
    assert point.milliseconds > 0
    assert point.megabytes is None
    scaling._plot([point], "nano", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
