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
from medmamba_monai.metrics import compare_tables

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
            called = NAMES[row.argmax()]
            if task == "multilabel":
                called = "|".join(name for name, value in zip(NAMES, row, strict=True) if value >= 0.5)
            writer.writerow([f"{index}.png", *group, NAMES[label], called, *(f"{v:.8g}" for v in row)])
    return folder


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_a_better_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str) -> None:
    weak, strong = write(tmp_path / "weak", 0.1, 1, task, True), write(tmp_path / "strong", 0.9, 2, task, True)
    out = tmp_path / "difference.json"
    code = main(["compare", str(weak), str(strong / "predictions.csv"), "--out", str(out), "--resamples", "300"])
    told = capsys.readouterr().out
    assert code == 0
    assert "B is better beyond noise in" in told and "A is better" not in told
    assert "No interval for " in told and "resampling biases the calibration error" in told
    assert ("thresholds 0.5 (A) and 0.5 (B)" if task == "multilabel" else "the most probable class") in told
    assert f"task {task}, " in told
    assert "300 paired resamples of 30 groups" in told and "Obuchowski" in told
    assert "auc of normal [r], DeLong" in told  # not taken for markup
    assert (
        max(len(line) for line in told.splitlines() if not line.startswith(("A:", "B:", "wrote", "B is", "A is")))
        <= 160
    )
    result = json.loads(out.read_text())
    assert result["thresholds"] == ([0.5, 0.5] if task == "multilabel" else None)
    assert result["task"] == task and result["metrics"]["auc"]["verdict"] == "b"
    assert result["a"] == str(weak) and set(result["per_class"]) == set(NAMES)


def test_noise_is_called_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path / "first", 0.4, 1), write(tmp_path / "second", 0.4, 2)
    assert main(["compare", str(first), str(second)]) == 0
    told = capsys.readouterr().out
    assert "The difference is noise in the scores that have an interval" in told and "McNemar's exact p = " in told
    assert main(["compare", str(first), str(second)]) == 0
    assert capsys.readouterr().out == told  # seeded


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_a_model_and_itself_is_noise_in_all_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    folder = str(write(tmp_path / "first", 0.4, 1, task))
    assert main(["compare", folder, folder, "--resamples", "100"]) == 0
    assert "The difference is noise: no interval" in capsys.readouterr().out


def test_without_an_interval_nothing_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nine images, one model far better than the other."""
    first, second = write(tmp_path / "first", 0.0, 1, count=9), write(tmp_path / "second", 5.0, 2, count=9)
    assert main(["compare", str(first), str(second), "--resamples", "100"]) == 0
    told = capsys.readouterr().out
    assert "Nothing could be judged: no score has an interval." in told and "noise" not in told
    assert "DeLong, p" not in told


def changed(folder: Path, old: str, new: str) -> Path:
    file = folder / "predictions.csv"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder


def test_task_and_threshold_come_from_the_evaluation(tmp_path: Path) -> None:
    folder = write(tmp_path / "first", 0.4, 1, "multilabel")
    beside = folder / "metrics.json"
    assert read_predictions(folder)[0].task == "multilabel"
    beside.write_text(json.dumps({"task": "multilabel", "threshold": 0.4999999, "class_names": NAMES}))
    table, threshold = read_predictions(folder / "predictions.csv")
    assert (table.task, threshold) == ("multilabel", 0.4999999)
    assert read_predictions(folder, "multilabel", 0.5)[1] == 0.5
    for content, words in (
        ("{", "is no JSON"),
        ('{"task": "multilabel", "threshold": null}', "threshold None is no number between 0 and 1"),
        ('{"task": "multilabel", "threshold": "0.5"}', "threshold '0.5' is no number"),
        ('{"task": "ranking"}', "task 'ranking' is neither multiclass nor multilabel"),
    ):
        beside.write_text(content)
        with pytest.raises(DataError, match=rf"metrics\.json: {words}"):
            read_predictions(folder)


def test_a_rounded_table_keeps_its_task(tmp_path: Path) -> None:
    """Nine classes with three digits: sums are up to 0.0045 off."""
    names, rng = [f"c{index}" for index in range(9)], np.random.default_rng(0)
    values = rng.dirichlet(np.full(9, 0.5), 60)
    rows = [
        [f"{index}.png", names[index % 9], names[row.argmax()], *(f"{value:.3f}" for value in row)]
        for index, row in enumerate(values)
    ]
    lines = [["file", "label", "prediction", *names], *rows]
    (tmp_path / "predictions.csv").write_text("\n".join(",".join(line) for line in lines), encoding="utf-8")
    table, _ = read_predictions(tmp_path)
    assert (np.abs(table.probabilities.sum(1) - 1) > 1e-3).any()
    assert table.task == "multiclass"
    assert compare_tables(table, table, resamples=100)["metrics"]["log_loss"]["a"] is not None


def test_predictions_that_task_and_threshold_do_not_give(tmp_path: Path) -> None:
    single = write(tmp_path / "single", 0.4, 1)
    with pytest.raises(DataError, match="predictions are not what reaches the threshold 0.5.*--task multiclass"):
        read_predictions(single, "multilabel")
    several = write(tmp_path / "several", 0.4, 1, "multilabel")
    with pytest.raises(DataError, match="predictions are not what reaches the threshold 0.3.*give --threshold"):
        read_predictions(several, threshold=0.3)
    row = (single / "predictions.csv").read_text(encoding="utf-8").splitlines()[1].split(",")
    other = next(name for name in NAMES if name != row[2])
    changed(single, f"0.png,{row[1]},{row[2]},", f"0.png,{row[1]},{other},")
    with pytest.raises(DataError, match=r"1 of 90 predictions are not the most probable class, first that of 0\.png"):
        read_predictions(single)


def test_a_column_that_is_no_class_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "several", 0.4, 1, "multilabel")
    lines = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    more = [f"{lines[0]},mine", *(f"{line},0.25" for line in lines[1:])]
    (folder / "predictions.csv").write_text("\n".join(more), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps({"task": "multilabel", "threshold": 0.5, "class_names": NAMES}))
    with pytest.raises(DataError, match=r"those in metrics\.json beside it.*leave out columns"):
        read_predictions(folder)


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, few = write(tmp_path / "first", 0.4, 1), write(tmp_path / "few", 0.4, 1, count=60)
    several = write(tmp_path / "several", 0.4, 1, "multilabel")
    broken = write(tmp_path / "broken", 0.4, 1)
    (broken / "metrics.json").write_text('{"threshold": null}')
    for arguments, code, words in (
        ([str(first), str(few)], 3, "the files differ: only A has 60.png, 61.png, 62.png and 27 more"),
        ([str(first), str(tmp_path / "none")], 3, "the predictions cannot be read"),
        ([str(first), str(several)], 2, "is multiclass"),
        ([str(first), str(first), "--resamples", "3"], 2, "--resamples 3 is too few"),
        ([str(first), str(first), "--seed", "-1"], 2, "--seed -1 is negative"),
        ([str(first), str(first), "--threshold", "1"], 2, "--threshold 1.0 lies outside 0 to 1"),
        ([str(first), str(broken)], 3, "metrics.json: threshold None is no number"),
        # before anything is read
        (["none", "none", "--out", str(tmp_path / "no" / "x.json")], 2, "the folder does not exist"),
        (["none", "none", "--out", str(tmp_path)], 2, "is a folder"),
    ):
        assert main(["compare", *arguments]) == code
        assert words in capsys.readouterr().err
