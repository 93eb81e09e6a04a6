"""The verb makes the page of the files alone, with images where they still are, and executes nothing it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.cli import main
from medmamba_monai.report import read_run
from medmamba_monai.report.command import picture_reader


def settings(folder: Path, **changes: Any) -> None:
    path = folder / "evaluate_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images" / "part").mkdir(parents=True)
    Image.fromarray(np.full((6, 8), 51, dtype=np.uint8)).save(tmp_path / "images" / "part" / "image_001.png")
    return tmp_path / "images"


def test_without_images(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make()
    assert main(["report", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "drawn without images: they are no longer where they were" in told
    assert "report.html" in told
    assert (folder / "figures" / "confident_errors.png").is_file()


def test_images_are_read_as_they_were(make: Any, images: Path) -> None:
    folder = make()
    for given in (images, None):
        settings(folder, dataset_dir=str(images if given is None else "/gone"))
        read, _ = picture_reader(read_run(folder), given)
        assert read is not None
        np.testing.assert_allclose(read("part/image_001.png"), np.full((1, 6, 8), 0.2), atol=1e-6)
    settings(folder, color="rgb")
    read, _ = picture_reader(read_run(folder), images)
    assert read is not None
    assert read("part/image_001.png").shape == (3, 6, 8)


def test_the_default_folder_lies_in_the_bundle(make: Any, images: Path) -> None:
    folder = make()
    images.rename(images.parent / "data")
    settings(folder, dataset_dir="$@bundle_root + '/data'", bundle_root=str(images.parent))
    assert picture_reader(read_run(folder))[0] is not None


def test_expressions_are_not_executed(make: Any, images: Path, tmp_path: Path) -> None:
    folder = make()
    evil = f"$open('{tmp_path}/executed', 'w')"
    settings(folder, color=evil)
    read, reason = picture_reader(read_run(folder), images)
    assert read is None
    assert "not executed" in reason
    settings(folder, color="grey", dataset_dir=evil)
    assert picture_reader(read_run(folder))[0] is None
    assert not (tmp_path / "executed").exists()


def test_errors(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 3
    assert "metrics.json" in capsys.readouterr().err
    assert main(["report", str(make()), "--dataset_dir", str(tmp_path / "gone")]) == 3
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "eval" / "evaluate_config.json").unlink()
    (tmp_path / "eval" / "train_config.json").unlink()
    assert picture_reader(read_run(tmp_path / "eval")) == (None, "the configuration of the run was not saved")
