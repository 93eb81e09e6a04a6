"""The benchmark end to end on phantoms: one row for each run, resumed, summarised."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from medmamba_monai.benchmarks import accuracy
from medmamba_monai.benchmarks.machine import read_rows
from medmamba_monai.data.phantom import write_phantoms

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_runs_resumes_and_summarises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_phantoms(tmp_path / "data" / "pack", per_class=24, size=40)
    monkeypatch.setitem(
        accuracy.RECIPES, "pack", accuracy.Recipe("chest_xray_classification", "grey", image_size=32, epochs=1)
    )
    arguments = argparse.Namespace(
        data=tmp_path / "data", packs=["pack"], seeds=[0], bundles=ROOT / "bundles", out=tmp_path / "accuracy.csv"
    )
    accuracy.run(arguments)
    rows = read_rows(arguments.out)
    assert [row["model"] for row in rows] == [accuracy.BASELINE, accuracy.NETWORK]
    for row in rows:
        assert 0 <= float(row["balanced_accuracy"]) <= 1
        if row["low95"]:  # a perfect score has no bootstrap interval
            assert 0 <= float(row["low95"]) <= float(row["balanced_accuracy"]) <= float(row["high95"]) <= 1
        assert sum(map(int, row["train/val/test"].split("/"))) == 48
    assert rows[0]["train/val/test"] == rows[1]["train/val/test"]
    accuracy.run(arguments)
    assert len(read_rows(arguments.out)) == 2
    summary = (tmp_path / "accuracy.md").read_text(encoding="utf-8")
    assert "| pack |" in summary
    assert "--image_size 32" in rows[1]["detail"]
