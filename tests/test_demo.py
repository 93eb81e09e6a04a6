"""The demonstration as a user runs it: on phantoms, where it must reach 0.95, and on the user's own folders."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medmamba_monai import cli
from medmamba_monai.data.phantom import write_phantoms

ROOT = Path(__file__).resolve().parent.parent


def demo(*options: str) -> str:
    command = [sys.executable, "-m", "medmamba_monai", "demo", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_phantoms_are_learned(tmp_path: Path) -> None:
    printed = demo("--out", str(tmp_path))
    table = dict(re.findall(r"^(\S.*?)  +(\S.*)$", printed, re.MULTILINE))
    assert float(table["test accuracy"]) >= 0.95
    for name in ("weights", "predictions", "MLflow database"):
        assert Path(table[name]).is_file()
    with Path(table["predictions"]).open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == int(table["images predicted"]) == 12
    assert "mlflow ui --backend-store-uri sqlite:////" in table["look at it with"]


@pytest.mark.slow
def test_own_folders(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "my films", per_class=8, size=40)
    printed = demo("--out", str(tmp_path / "out"), "--dataset_dir", str(tmp_path / "my films"), "--epochs", "1",
                   "--image_size", "32")  # fmt: skip
    assert "images predicted" in printed


def test_an_unknown_bundle_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["demo", "--bundle", "hand_xray", "--bundles_dir", str(tmp_path)]) == 2
    assert "there is no bundle" in capsys.readouterr().err
