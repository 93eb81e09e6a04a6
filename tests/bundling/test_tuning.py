"""The search: what is drawn, kept and ended early, also when the search is killed; trainings only write scores."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.bundling import experiment as experiment_module
from medmamba_monai.bundling import tuning
from medmamba_monai.bundling.parent_run import ParentRun
from medmamba_monai.bundling.search_space import parse_space
from medmamba_monai.bundling.subprocesses import Interrupted, RunFailedError
from medmamba_monai.bundling.tuning import Search, best_trial, finished_trials, tune

from .experiments import SETTINGS, make_experiment

pytest.importorskip("optuna")

SPACE = parse_space('{"learning_rate": {"low": 1e-4, "high": 1e-2, "log": true}, "preset": ["nano", "tiny"]}')


class Child:
    """Stands for a training that a watcher may stop."""

    stopped = False

    def stop(self) -> None:
        self.stopped = True


class FakeTrainings:
    """Stands for `run_bundle`: nine epochs whose score is best at a rate of 1e-3 and grows with the epochs."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.kill_in: dict[int, int] = {}  # number of the training → epoch
        self.fail_in: set[int] = set()
        self.stopped_code = 75

    def __call__(self, arguments: list[str], log: Path, *, watch: Any, show: Any, **further: Any) -> int:
        from fire.parser import DefaultParseValue

        words = arguments[3:]
        options = dict(
            zip((w.removeprefix("--") for w in words[::2]), map(DefaultParseValue, words[1::2]), strict=True)
        )
        number = len(self.asked)
        self.asked.append(options)
        weights, results = Path(options["ckpt_dir"]), Path(options["output_dir"])
        weights.mkdir(parents=True, exist_ok=True)
        log.write_text("ValueError: planted\n")
        if number in self.fail_in:
            return 1
        child, rows = Child(), ["epoch,train_loss,learning_rate,seconds,val_balanced_accuracy"]
        distance = abs(options["learning_rate"] - 1e-3) * 100
        for epoch in range(1, SETTINGS["epochs"] + 1):
            score = 1 / (1 + distance) * epoch / 9
            rows.append(f"{epoch},0.5,0.001,1.0,{score}")
            (results / "history.csv").write_text("\n".join(rows) + "\n")
            (weights / "checkpoint.pt").write_bytes(b"state")
            index = {"format": 1, "files": {"model.pt": {"sha256": "0", "value": score}}}
            (weights / "checkpoints.json").write_text(json.dumps(index))
            if self.kill_in.get(number) == epoch:
                raise KeyboardInterrupt
            watch(child)
            if child.stopped:
                return self.stopped_code
        log.with_suffix(".status.json").write_text('{"code": 0}')
        return 0


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> FakeTrainings:
    fake = FakeTrainings()
    monkeypatch.setattr(experiment_module, "run_bundle", fake)
    return fake


def go(root: Path, trials: int, **options: Any) -> tuple[Any, list[str]]:
    told: list[str] = []
    root.mkdir(exist_ok=True)
    experiment = make_experiment(root)
    parent = ParentRun(experiment.folder, None, "e", "x")
    return tune(experiment, Search(SPACE, trials, **options), parent, told.append, lambda text: None), told


def scores(study: Any) -> list[tuple[Any, ...]]:
    return [(t.user_attrs["index"], t.state.name, t.value, t.user_attrs["overrides"]) for t in finished_trials(study)]


def test_the_best_is_kept_and_bad_trials_end_early(tmp_path: Path, trainings: FakeTrainings) -> None:
    study, told = go(tmp_path, 14)
    states = [trial.state.name for trial in study.trials]
    assert len(states) == 14
    assert states.count("PRUNED") >= 2
    best = best_trial(study)
    assert best.value == max(trial.value for trial in study.trials if trial.state.name == "COMPLETE")
    overrides = json.loads((tmp_path / "out" / "best.json").read_text())
    assert overrides == best.user_attrs["overrides"]
    assert overrides["preset"] in ("nano", "tiny")
    with (tmp_path / "out" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == [state.lower() for state in states]
    assert [int(row["epochs"]) for row in rows if row["state"] == "complete"] == [9] * states.count("COMPLETE")
    assert all(int(row["epochs"]) < 9 for row in rows if row["state"] == "pruned")
    assert any("pruned after epoch" in line for line in told)
    assert told[0].startswith("trial 0: val_balanced_accuracy 0.")
    assert not list((tmp_path / "out").rglob("checkpoint.pt"))
    lists = {options["datalist"] for options in trainings.asked}
    assert lists == {str(tmp_path / "out" / "datalist.json")}
    assert {options["resume"] for options in trainings.asked} == {False}


def test_a_killed_search_finds_what_an_uninterrupted_one_finds(tmp_path: Path, trainings: FakeTrainings) -> None:
    whole, _ = go(tmp_path / "whole", 6, pruner="none")
    trainings.asked.clear()
    trainings.kill_in = {2: 3, 3: 4}  # the third trial, and once more while it is tried again
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "killed", 6, pruner="none")
    study, _ = go(tmp_path / "killed", 6, pruner="none")
    assert scores(study) == scores(whole)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2 + ["FAIL"] * 2 + ["COMPLETE"] * 4
    assert [options["resume"] for options in trainings.asked] == [False, False, False, True, True, False, False, False]
    assert len({options["ckpt_dir"] for options in trainings.asked}) == 6
    again = study.trials[4]
    assert sorted(again.intermediate_values) == list(range(1, 10))
    assert go(tmp_path / "killed", 6, pruner="none")[1] == []  # nothing is lacking


def test_a_kill_between_noting_and_marking_loses_nothing(tmp_path: Path, trainings: FakeTrainings) -> None:
    trainings.kill_in = {0: 2}
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, 1)
    import optuna

    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{tmp_path}/out/study.db")
    study.enqueue_trial(study.trials[0].params, user_attrs={"index": 0, "continues": 0})
    study, _ = go(tmp_path, 1)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]


@pytest.mark.parametrize("noted", ["index", "overrides"])
def test_a_kill_before_a_trial_is_noted_mixes_no_trials(
    noted: str, tmp_path: Path, trainings: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna.trial import Trial

    whole, _ = go(tmp_path / "whole", 5, pruner="none")
    trainings.asked.clear()
    go(tmp_path / "killed", 2, pruner="none")

    def killed(self: Any, key: str, value: Any) -> None:
        if key == noted:
            raise KeyboardInterrupt
        note(self, key, value)

    note = Trial.set_user_attr
    with monkeypatch.context() as planted:
        planted.setattr(Trial, "set_user_attr", killed)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "killed", 5, pruner="none")
    study, _ = go(tmp_path / "killed", 5, pruner="none")
    assert scores(study) == scores(whole)
    assert len(trainings.asked) == 5
    assert len({options["ckpt_dir"] for options in trainings.asked}) == 5


def test_a_kill_behind_the_last_trial_leaves_no_stale_files(
    tmp_path: Path, trainings: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*anything: Any, **further: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as planted:
        planted.setattr(tuning, "write_trials", killed)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path, 1)
    study, _ = go(tmp_path, 1)
    assert json.loads((tmp_path / "out" / "best.json").read_text()) == study.trials[0].user_attrs["overrides"]

    monkeypatch.setattr(ParentRun, "log", killed)  # the store comes behind the files
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, 2)
    assert len((tmp_path / "out" / "trials.csv").read_text().splitlines()) == 3


def test_a_training_stopped_outside_of_its_epochs_is_pruned(tmp_path: Path, trainings: FakeTrainings) -> None:
    trainings.stopped_code = -15
    study, _ = go(tmp_path, 14)
    assert [trial.state.name for trial in study.trials].count("PRUNED") >= 2


def test_a_folder_whose_name_looks_encoded(tmp_path: Path, trainings: FakeTrainings) -> None:
    go(tmp_path / "c%41d", 1)
    assert (tmp_path / "c%41d" / "out" / "study.db").is_file()


def test_failures(tmp_path: Path, trainings: FakeTrainings) -> None:
    trainings.fail_in = {0}
    with pytest.raises(RunFailedError, match=r"the first trial failed: .*trial_000/train\.log.*ValueError: planted"):
        go(tmp_path / "first", 5)
    trainings.asked.clear()
    trainings.fail_in = {2, 4, 5, 6}
    with pytest.raises(RunFailedError, match="3 trials in a row failed"):
        go(tmp_path / "later", 9)
    assert len(trainings.asked) == 7


def test_a_trial_stopped_by_somebody_else_is_not_pruned(
    tmp_path: Path, trainings: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment_module, "run_bundle", lambda *args, **kwargs: 75)
    with pytest.raises(Interrupted, match="from outside"):
        go(tmp_path, 1)


def test_without_optuna(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    from medmamba_monai import cli

    monkeypatch.setitem(sys.modules, "optuna", None)
    assert cli.main(["tune", "b", "--space", "{}", "--output_dir", str(tmp_path)]) == 2
