"""Tables of measurements: appended, read back, and saying where they come from."""

from __future__ import annotations

from pathlib import Path

import torch

from medmamba_monai.benchmarks.machine import append_rows, describe, read_rows


def test_rows_are_appended_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.csv"
    assert read_rows(path) == []
    append_rows(path, [{"a": 1, "b": "x, y"}])
    append_rows(path, [{"a": 2, "b": "z"}])
    assert read_rows(path) == [{"a": "1", "b": "x, y"}, {"a": "2", "b": "z"}]
    assert path.read_text(encoding="utf-8").count("a,b") == 1


def test_description() -> None:
    told = describe()
    assert torch.__version__ in told["versions"]
    assert f"{torch.get_num_threads()} threads" in told["cpu"]
