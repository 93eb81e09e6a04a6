"""``python -m medmamba_monai data check``: what it prints and how it exits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medmamba_monai import cli
from medmamba_monai.data import build_datalist
from medmamba_monai.data.phantom import write_phantoms


@pytest.fixture
def films(tmp_path: Path) -> Path:
    write_phantoms(tmp_path / "films", per_class=12, size=48)
    return tmp_path / "films"


def test_a_clean_folder(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(films), "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "24 images" in printed
    assert printed.count("training can go ahead") == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"data_report.json", "contact_sheet.png"}


def test_leaks_and_damage_are_named(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datalist = build_datalist(films)
    shutil.copy(films / datalist.training[0]["image"], films / datalist.test[0]["image"])
    (films / datalist.validation[0]["image"]).write_bytes(b"no picture")
    datalist.save(tmp_path / "list.json")
    options = ["--dataset_dir", str(films), "--output_dir", str(tmp_path / "out")]
    assert cli.main(["data", "check", str(tmp_path / "list.json"), *options]) == 3
    printed = capsys.readouterr().out
    assert "same picture in two splits: 1" in printed
    assert f"unreadable: 1\n  {datalist.validation[0]['image']}" in printed
    assert "training should not go ahead" in printed


def test_several_labels_an_image(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(path.relative_to(films).as_posix() for path in films.rglob("*.png"))
    rows = [f"{file},{('round', 'long', 'round|long', 'No Finding')[i % 4]}" for i, file in enumerate(files)]
    (films / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    options = ["--output_dir", str(tmp_path / "out")]
    assert cli.main(["data", "check", str(films), *options]) == 3
    assert "--task multilabel" in capsys.readouterr().err
    assert cli.main(["data", "check", str(films), "--task", "multilabel", *options]) == 0
    assert "round: " in capsys.readouterr().out


def test_a_missing_source(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["data", "check", str(tmp_path / "nothing")]) == 3
    assert "no such folder or file" in capsys.readouterr().err
