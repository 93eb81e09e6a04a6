"""``compare`` from files to words and JSON; what cannot be compared ends with its exit code."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from medmamba_monai.bundling.compare_command import read_predictions
from medmamba_monai.cli import main
from medmamba_monai.errors import DataError

NAMES = ["cyst", "mass", "normal [r]"]


def write(
    folder: Path, strength: float, seed: int, task: str = "multiclass", groups: bool = False, count: int = 90
) -> Path:
    """An evaluation's table of a model that is the better the larger ``strength`` is."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    scores = rng.random((count, 3)) + strength * np.eye(3)[labels]
    values = scores / scores.sum(1, keepdims=True) if task == "multiclass" else np.clip(scores / 2, 0, 1)
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", *(["group"] if groups else []), "label", "prediction", *NAMES])
        for index, (label, row) in enumerate(zip(labels, values, strict=True)):
            group = [f"P{index // 3}"] if groups else []
            writer.writerow([f"{index}.png", *group, NAMES[label], NAMES[row.argmax()], *(f"{v:.8g}" for v in row)])
    return folder


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_a_better_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str) -> None:
    weak, strong = write(tmp_path / "weak", 0.1, 1, task, True), write(tmp_path / "strong", 0.9, 2, task, True)
    out = tmp_path / "difference.json"
    code = main(["compare", str(weak), str(strong / "predictions.csv"), "--out", str(out), "--resamples", "300"])
    told = capsys.readouterr().out
    assert code == 0
    assert "B is better beyond noise in" in told and "A is better beyond noise in ece." in told
    assert "300 paired resamples of 30 groups" in told and "Obuchowski" in told
    assert "auc of normal [r], DeLong" in told  # not taken for markup
    assert (
        max(len(line) for line in told.splitlines() if not line.startswith(("A:", "B:", "wrote", "B is", "A is")))
        <= 160
    )
    result = json.loads(out.read_text())
    assert result["task"] == task and result["metrics"]["auc"]["verdict"] == "b"
    assert result["a"] == str(weak) and set(result["per_class"]) == set(NAMES)


def test_noise_is_called_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path / "first", 0.4, 1), write(tmp_path / "second", 0.4, 2)
    assert main(["compare", str(first), str(second)]) == 0
    told = capsys.readouterr().out
    assert "The difference is noise" in told and "McNemar's exact p = " in told
    assert main(["compare", str(first), str(second)]) == 0
    assert capsys.readouterr().out == told  # seeded


def test_task_and_threshold_come_from_the_evaluation(tmp_path: Path) -> None:
    folder = write(tmp_path / "first", 0.4, 1)
    assert read_predictions(folder)[0].task == "multiclass"
    (folder / "metrics.json").write_text(json.dumps({"task": "multilabel", "threshold": 0.3}))
    table, threshold = read_predictions(folder / "predictions.csv")
    assert (table.task, threshold) == ("multilabel", 0.3)
    assert read_predictions(folder, "multiclass")[0].task == "multiclass"
    (folder / "metrics.json").write_text("{")
    with pytest.raises(DataError, match=r"metrics\.json: is no JSON"):
        read_predictions(folder)


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, few = write(tmp_path / "first", 0.4, 1), write(tmp_path / "few", 0.4, 1, count=60)
    several = write(tmp_path / "several", 0.4, 1, "multilabel")
    for arguments, code, words in (
        ([str(first), str(few)], 3, "the files differ: only A has 60.png, 61.png, 62.png and 27 more"),
        ([str(first), str(tmp_path / "none")], 3, "the predictions cannot be read"),
        ([str(first), str(several)], 2, "is multiclass"),
        ([str(first), str(first), "--resamples", "3"], 2, "--resamples 3 is too few"),
        ([str(first), str(first), "--seed", "-1"], 2, "--seed -1 is negative"),
        ([str(first), str(first), "--out", str(tmp_path / "no" / "x.json")], 2, "the folder does not exist"),
    ):
        assert main(["compare", *arguments]) == code
        assert words in capsys.readouterr().err
