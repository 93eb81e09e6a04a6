"""The scan's benchmark measures what it says, and reports nothing while parity is red."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from medmamba_monai.benchmarks import scan
from medmamba_monai.benchmarks.machine import read_rows
from medmamba_monai.errors import BackendError
from medmamba_monai.ops.selective_scan import portable


def test_table_has_a_row_for_each_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "STAGES", ((4, 8, 1), (3, 16, 2)))
    out = tmp_path / "scan.csv"
    scan.run(argparse.Namespace(threads=[1], batch=1, seconds=0.0, out=out))
    rows = read_rows(out)
    assert {row["stage"] for row in rows} == {"1", "2"}
    assert {"reference", "portable", "released flow, reference loop"} <= {row["what"] for row in rows}
    assert all(float(row["median_ms"]) > 0 for row in rows)


def test_no_speed_while_parity_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = portable.directional_forward

    def wrong(inputs: scan.DirectionalInputs, save: bool) -> tuple[torch.Tensor, torch.Tensor]:
        y, saved = forward(inputs, save)
        return y * 1.0001, saved

    monkeypatch.setattr(portable, "directional_forward", wrong)
    with pytest.raises(BackendError, match="no speed is reported"):
        scan.run(argparse.Namespace(threads=[1], batch=1, seconds=0.0, out=tmp_path / "scan.csv"))
    assert not (tmp_path / "scan.csv").exists()
