"""What a bundle's training and evaluation leave for people to look at, for volumes and several labels too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.cli import main
from medmamba_monai.figures import NAMES

from .conftest import BundleCopy, copy_bundle
from .test_multilabel import write_films


def looked_at(bundle: BundleCopy, **training: Any) -> Path:
    bundle.pictures = True
    bundle.run("train", epochs=2, **training)
    bundle.run("evaluate")
    return bundle.root / "eval"


def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {path.stem for path in (folder / "figures").iterdir()} == set(NAMES)
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{json.loads((folder / 'metrics.json').read_text())['auc']:.3f}" in html
    assert "data dir é, test part" in html
    assert str(folder.parent) not in html
    sheet = (folder / "figures" / "confident_errors.png").read_bytes()
    assert main(["report", str(folder)]) == 0
    assert "without images" not in capsys.readouterr().out
    assert (folder / "figures" / "confident_errors.png").read_bytes() == sheet  # the verb reads images alike


@pytest.mark.slow
def test_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(looked_at(copy_bundle("brain_mri_classification", tmp_path, per_class=8)), capsys)


@pytest.mark.slow
def test_several_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = copy_bundle("chest_xray_classification", tmp_path, per_class=0)
    write_films(tmp_path / "data dir é" / "data dir é", 42)
    bundle.data = tmp_path / "data dir é" / "data dir é"
    check(looked_at(bundle, task="multilabel"), capsys)


@pytest.mark.slow
def test_colour_pictures_and_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = copy_bundle("gi_endoscopy_classification", tmp_path, per_class=5)
    bundle.run("train", report=False)
    assert not (bundle.root / "eval" / "figures").exists()
    check(looked_at(bundle), capsys)
    (bundle.root / "eval" / "report.html").unlink()
    bundle.run("evaluate", report="false")
    assert not (bundle.root / "eval" / "report.html").exists()
