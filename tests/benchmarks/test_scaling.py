"""The scaling benchmark: slopes, and one small size end to end."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from medmamba_monai.benchmarks import memory, scaling
from medmamba_monai.benchmarks.machine import read_rows
from medmamba_monai.benchmarks.timing import Timing
from medmamba_monai.errors import BackendError
from medmamba_monai.ops.selective_scan import dispatch
from tests.benchmarks.parity import refused_table, spoil_backward, spoil_optimized


def test_slope_of_a_square() -> None:
    points = [scaling.Point(2, s, s * s, Timing(0.5 * (s * s) ** 2, 0.0, 1e9, 3), 0.0) for s in (8, 16, 32)]
    assert scaling.slope(points) == pytest.approx(2.0)


@pytest.mark.slow
def test_table_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_SIDES", {2: (256, 288), 3: (32,)})
    out = tmp_path / "scaling.csv"
    scaling.run(argparse.Namespace(preset="nano", threads=1, seconds=0.0, out=out))
    rows = read_rows(out)
    assert [(row["spatial_dims"], row["side"]) for row in rows] == [("2", "256"), ("2", "288"), ("3", "32")]
    assert {row["calls"] for row in rows} == {"3"}
    assert all("1 threads" in row["cpu"] for row in rows)
    for row in rows:
        low, high = map(float, row["quartiles_ms"].split())
        assert 0 < low <= float(row["median_ms"]) <= high
    assert all(float(row["megabytes"]) > 1 for row in rows)
    assert (tmp_path / "scaling.png").stat().st_size > 5000


def test_the_plot_shows_the_quartiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn = {}
    errorbar = Axes.errorbar

    def record(self: Axes, x: list[float], y: list[float], **options: Any) -> Any:
        drawn[options["label"]] = (x, y, options["yerr"])
        return errorbar(self, x, y, **options)

    monkeypatch.setattr(Axes, "errorbar", record)
    times = [(2, 8, Timing(2.0, 1.5, 4.0, 9)), (2, 16, Timing(8.0, 7.0, 9.0, 9)), (3, 8, Timing(6.0, 6.0, 6.5, 9))]
    points = [scaling.Point(dims, side, side**dims, timing, 1.0) for dims, side, timing in times]
    scaling._plot(points, "nano", tmp_path / "plot.png")
    assert drawn["2-D"] == ([64, 256], [2.0, 8.0], [[0.5, 1.0], [2.0, 1.0]])
    assert drawn["3-D"] == ([512], [6.0], [[0.0], [0.5]])


def test_without_a_peak_the_rest_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "unmeasurable", lambda: "psutil is not installed")
    point = scaling.measure_size("nano", 2, 64, torch.get_num_threads(), 0.0)
    assert 0 < point.timing.low <= point.timing.median <= point.timing.high
    assert point.megabytes is None
    scaling._plot([point], "nano", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


@pytest.mark.parametrize("planted", ["scan", "optimized network"])
def test_no_speed_while_parity_is_red(
    planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if planted == "scan":
        spoil_backward(dispatch.load(dispatch.resolve("cpu")), monkeypatch)
    else:
        spoil_optimized(monkeypatch)
    out = refused_table(tmp_path)
    with pytest.raises(BackendError, match="no speed is reported"):
        scaling.run(argparse.Namespace(preset="nano", threads=1, seconds=0.0, out=out))
    assert out.read_text(encoding="utf-8") == "of an earlier run"
    assert not out.with_suffix(".png").exists()
    assert capsys.readouterr().out == ""
