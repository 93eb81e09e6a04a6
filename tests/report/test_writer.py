"""The handlers in real engines: files of a run, failures that lose nothing, batches of every kind."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.transforms import Compose, Lambdad
from PIL import Image

from medmamba_monai.data import ReadImaged
from medmamba_monai.errors import DataError
from medmamba_monai.figures import NAMES
from medmamba_monai.report import ReportWriter, TrainingFigures
from medmamba_monai.report.writer import first_picture


def finished(*handlers: Any, batches: Any = (0,)) -> None:
    engine = Engine(lambda engine, batch: None)
    for handler in handlers:
        handler.attach(engine)
    engine.run(batches)


def test_figures_and_page(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make()
    asked: list[str] = []
    monkeypatch.setattr(
        "medmamba_monai.report.writer.first_picture", lambda _, path: asked.append(path) or np.ones((1, 9, 9))
    )
    files = [line.split(",")[0] for line in (folder / "predictions.csv").read_text().splitlines()[1:]]
    items = [{"file": file, "image": f"/data/{file}"} for file in files]
    finished(ReportWriter(folder, "test", items, Compose([])))
    assert (folder / "report.html").is_file()
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    assert drawn == set(NAMES) - {"training_batch"}
    assert 0 < len(asked) <= 12
    assert all(path.startswith("/data/") for path in asked)


def test_a_failure_names_what_to_do_and_loses_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make()
    before = (folder / "predictions.csv").read_bytes()

    def broken(*_: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("medmamba_monai.figures.draw_evaluation", broken)
    with pytest.raises(
        DataError, match=r"predictions and metrics are written.*no font.*medmamba_monai report.*--report false"
    ):
        finished(ReportWriter(folder))
    assert (folder / "predictions.csv").read_bytes() == before


@pytest.mark.parametrize("off", ["flag", "rank"])
def test_silent_when_off_or_not_rank_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    if off == "rank":
        monkeypatch.setenv("RANK", "1")
    enabled = off == "rank"
    finished(ReportWriter(tmp_path / "gone", enabled=enabled), TrainingFigures(tmp_path, ["a"], enabled=enabled))
    assert list(tmp_path.iterdir()) == []


def test_the_picture_is_the_one_that_was_read(tmp_path: Path) -> None:
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "a.png")
    steps = Compose([Compose([ReadImaged("image", color="grey")]), Lambdad("image", lambda image: image * 0)])
    picture = first_picture(steps, str(tmp_path / "a.png"))
    np.testing.assert_allclose(picture, np.arange(48).reshape(1, 6, 8) / 255, atol=1e-6)
    with pytest.raises(DataError, match="no step"):
        first_picture(Compose([Lambdad("image", str)]), "x")
    with pytest.raises(DataError, match=r"absent\.png"):
        first_picture(steps, str(tmp_path / "absent.png"))


def batch(shape: tuple[int, ...], labels: Any) -> dict[str, Any]:
    count = len(labels)
    return {
        "image": torch.rand(count, *shape),
        "label": torch.as_tensor(labels),
        "file": [f"{i}.png" for i in range(count)],
    }


def taken_apart(whole: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value[i] for key, value in whole.items()} for i in range(len(whole["file"]))]


@pytest.mark.parametrize(
    "given",
    [
        batch((1, 20, 24), [0, 1, 1]),
        batch((3, 20, 24), [[1.0, 1.0], [0.0, 0.0]]),
        batch((1, 20, 24, 8), [0, 1]),
        taken_apart(batch((3, 20, 24), [1, 0])),
    ],
    ids=["grey", "several labels", "volume", "taken apart"],
)
def test_training_batch_and_curves(make: Any, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make()
    seen: list[Any] = []
    from medmamba_monai import figures

    draw = figures.draw_batch
    monkeypatch.setattr(figures, "draw_batch", lambda *arguments: seen.append(arguments) or draw(*arguments))
    finished(TrainingFigures(folder, ["cyst", "mass"], "/scans/ultrasound"), batches=[given, given])
    assert {path.name for path in (folder / "figures").iterdir()} == {"training_batch.png", "curves.png"}
    assert len(seen) == 1  # the first batch only
    labels = seen[0][2]
    assert labels in (["cyst", "mass", "mass"], ["cyst, mass", "No Finding"], ["cyst", "mass"], ["mass", "cyst"])
    assert seen[0][4] == "ultrasound"


def test_a_batch_that_cannot_be_drawn_costs_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        finished(TrainingFigures(tmp_path, ["a", "b"]), batches=[batch((2, 8, 8), [0, 1])])
    assert "training_batch could not be drawn: an array of shape (2, 8, 8)" in caplog.text
