"""The scan's benchmark measures what it says, and reports nothing while parity is red."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from medmamba_monai.benchmarks import scan
from medmamba_monai.benchmarks.machine import read_rows
from medmamba_monai.benchmarks.timing import Timing
from medmamba_monai.errors import BackendError
from medmamba_monai.ops.selective_scan import cpu, portable
from tests.benchmarks.parity import spoil_released_flow


def test_table_has_a_row_for_each_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "STAGES", ((4, 8, 1), (3, 16, 2)))
    out = tmp_path / "scan.csv"
    scan.run(argparse.Namespace(threads=[1], batch=1, seconds=0.0, out=out))
    rows = read_rows(out)
    assert {row["stage"] for row in rows} == {"1", "2"}
    assert {"reference", "portable", "released flow, reference loop"} <= {row["what"] for row in rows}
    assert all(float(row["median_ms"]) > 0 for row in rows)
    measured = {row["what"] for row in rows if row["times_floor"]}
    assert ("cpu" in measured) == any(row["what"] == "cpu" for row in rows)
    assert not any(name.endswith("backward") for name in measured)


def test_training_of_the_released_flow_is_timed_on_small_maps_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scan, "STAGES", ((15, 8, 1), (14, 8, 1), (7, 16, 2)))
    out = tmp_path / "scan.csv"
    scan.run(argparse.Namespace(threads=[1], batch=1, seconds=0.0, out=out))
    name = "released flow, reference loop forward + backward"
    rows = {row["stage"]: row for row in read_rows(out) if row["what"] == name}
    assert [(stage, row["pixels"]) for stage, row in rows.items()] == [("2", "196"), ("3", "49")]
    assert {row["times_floor"] for row in rows.values()} == {""}
    line = next(line for line in capsys.readouterr().out.splitlines() if name in line)
    assert line.endswith("(stages 2, 3 alone)")


def test_totals_compare_the_same_stages() -> None:
    def timing(median: float) -> Timing:
        return Timing(median, median, median, 3)

    small = "released flow, reference loop forward + backward"
    stages = [
        {"reference": timing(100.0), scan._FLOOR: timing(1.0), "cpu": timing(2.0)},
        {"reference": timing(10.0), scan._FLOOR: timing(3.0), "cpu": timing(4.0), small: timing(40.0)},
    ]
    lines = {" ".join(line.split()) for line in scan._totals(stages)}
    assert "cpu 6.0 ms 18.3 x reference 1.50 x floor" in lines
    assert f"{small} 40.0 ms 0.2 x reference (stage 2 alone)" in lines


@pytest.mark.skipif(cpu.unavailable(torch.device("cpu")) is not None, reason="needs the C library")
def test_the_floor_counts_every_state_of_every_direction() -> None:
    inputs = scan.problem(4, 8, 1, 2)
    done = cpu.multiply_adds(scan.floor_rounds(inputs))
    needed = 12.5 * 2 * 16 * 8 * 4 * 16
    assert needed <= done < needed + cpu.multiply_adds(1)


def test_without_the_library_there_is_no_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "STAGES", ((4, 8, 1),))
    monkeypatch.setattr(cpu, "unavailable", lambda device: "not built")
    scan.run(argparse.Namespace(threads=[1], batch=1, seconds=0.0, out=tmp_path / "scan.csv"))
    rows = read_rows(tmp_path / "scan.csv")
    assert rows
    assert not any(row["times_floor"] for row in rows)


def test_no_speed_while_parity_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = portable.directional_forward

    def wrong(inputs: scan.DirectionalInputs, save: bool) -> tuple[torch.Tensor, torch.Tensor]:
        y, saved = forward(inputs, save)
        return y * 1.0001, saved

    monkeypatch.setattr(portable, "directional_forward", wrong)
    with pytest.raises(BackendError, match="no speed is reported"):
        scan.run(argparse.Namespace(threads=[1], batch=1, seconds=0.0, out=tmp_path / "scan.csv"))
    assert not (tmp_path / "scan.csv").exists()


def test_no_speed_while_the_released_flow_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan.check_released_flow()
    spoil_released_flow(monkeypatch)
    with pytest.raises(BackendError, match="the released flow differs .* no speed is reported"):
        scan.run(argparse.Namespace(threads=[1], batch=1, seconds=0.0, out=tmp_path / "scan.csv"))
    assert not (tmp_path / "scan.csv").exists()
    assert capsys.readouterr().out == ""


def test_a_backward_that_swaps_pixels_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    backward = portable.directional_backward
    monkeypatch.setattr(portable, "directional_backward", lambda grad, *others: backward(grad.flip(1), *others))
    with pytest.raises(BackendError, match="backend 'portable' differs"):
        scan.check_parity("portable")
