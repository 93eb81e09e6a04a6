"""Folds and seeds: every image tested once, nothing run twice, nothing lost when one fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.bundling import experiment as experiment_module
from medmamba_monai.bundling.cross_validation import Protocol, cross_validate, deal
from medmamba_monai.bundling.parent_run import ParentRun
from medmamba_monai.bundling.subprocesses import RunFailedError
from medmamba_monai.data import Datalist
from medmamba_monai.errors import ConfigError, DataError
from medmamba_monai.metrics import PredictionTable

from .experiments import FakeRuns, make_experiment


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    fake = FakeRuns()
    monkeypatch.setattr(experiment_module, "run_bundle", fake)
    return fake


def go(root: Path, protocol: Protocol, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[str]]:
    told: list[str] = []
    experiment = make_experiment(root, options)
    parent = ParentRun(experiment.folder, None, "e", "x")
    return cross_validate(experiment, protocol, parent, told.append, lambda text: None), told


def test_folds_and_seeds_then_one_more_seed(tmp_path: Path, runs: FakeRuns) -> None:
    report, told = go(tmp_path, Protocol(3, [0, 1]))
    assert runs.names() == [
        f"{mode} fold_{fold}/run_seed_{seed}" for seed in (0, 1) for fold in (1, 2, 3) for mode in ("train", "evaluate")
    ]
    assert report["n"] == 24
    assert report["protocol"] == {
        "folds": 3, "seeds": [0, 1], "validation": 0.15, "parts": ["training", "validation", "test"]
    }  # fmt: skip
    assert len(PredictionTable.read(tmp_path / "out" / "predictions.csv").files) == 24
    assert told[0].startswith("fold 1 seed 0: balanced_accuracy ")
    for fold in (1, 2, 3):
        datalist = Datalist.load(tmp_path / "out" / f"fold_{fold}" / "datalist.json")  # no patient in two parts
        seen = {options["datalist"] for mode, options in runs.asked if f"fold_{fold}/" in options["ckpt_dir"]}
        assert seen == {str(tmp_path / "out" / f"fold_{fold}" / "datalist.json")}
        assert len(datalist.test) == 8

    more, told = go(tmp_path, Protocol(3, [0, 1, 2]), {"num_workers": 2})
    assert len(runs.asked) == 12 + 6
    assert sum("done before" in line for line in told) == 6
    assert [row["seed"] for row in more["seeds"]] == [0, 1, 2]
    assert more["seeds"][0] == report["seeds"][0]


def test_a_failing_fold_stops_and_the_others_are_kept(tmp_path: Path, runs: FakeRuns) -> None:
    def fail(mode: str, options: dict[str, Any], log: Path) -> int:
        if "fold_2" in options["ckpt_dir"] and mode == "train":
            log.write_text("RuntimeError: out of memory\n")
            return 1
        return 0

    runs.before = fail
    with pytest.raises(RunFailedError, match=r"fold_2/run_seed_0/train\.log: .*RuntimeError: out of memory"):
        go(tmp_path, Protocol(3, [0]))
    assert len(runs.asked) == 3
    runs.before = lambda mode, options, log: 0
    report, _ = go(tmp_path, Protocol(3, [0]))
    assert len(runs.asked) == 3 + 4
    assert len(report["folds"]) == 3


def test_seeds_of_the_bundles_own_split(tmp_path: Path, runs: FakeRuns) -> None:
    report, _ = go(tmp_path, Protocol(1, [0, 5]))
    assert runs.names() == [f"{mode} run_seed_{seed}" for seed in (0, 5) for mode in ("train", "evaluate")]
    assert {options["datalist"] for _, options in runs.asked} == {str(tmp_path / "out" / "datalist.json")}
    assert report["spread"]["folds"] is None
    assert len(report["spread"]["seeds"]["accuracy"]["values"]) == 2
    assert report["n"] == len(Datalist.load(tmp_path / "out" / "datalist.json").test)


@pytest.mark.parametrize(
    ("protocol", "options"),
    [(Protocol(4, [0]), {}), (Protocol(3, [0]), {"epochs": 7}), (Protocol(3, [0], validation=0.3), {})],
)
def test_another_protocol_does_not_mix_with_what_is_there(
    protocol: Protocol, options: dict[str, Any], tmp_path: Path, runs: FakeRuns
) -> None:
    go(tmp_path, Protocol(3, [0]))
    before = (tmp_path / "out" / "fold_1" / "datalist.json").read_bytes()
    with pytest.raises(ConfigError, match=r"plan\.json: .* was .* and is .* now.*another --output_dir"):
        go(tmp_path, protocol, options)
    assert (tmp_path / "out" / "fold_1" / "datalist.json").read_bytes() == before
    assert len(runs.asked) == 6


def test_an_edited_config_does_not_mix_with_what_is_there(tmp_path: Path, runs: FakeRuns) -> None:
    config = tmp_path / "bundle" / "configs" / "train.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"learning_rate": 0.001}')
    go(tmp_path, Protocol(3, [0]))
    config.write_text('{"learning_rate": 0.01}')
    with pytest.raises(ConfigError, match=r"train\.json was changed since.*another --output_dir"):
        go(tmp_path, Protocol(3, [0]))
    assert len(runs.asked) == 6


def test_changed_data_are_noticed(tmp_path: Path, runs: FakeRuns) -> None:
    go(tmp_path, Protocol(3, [0]))
    table = tmp_path / "data" / "labels.csv"
    table.write_text(table.read_text().replace("benign_3.png,benign", "benign_3.png,malignant"))
    with pytest.raises(DataError, match=r"benign_3\.png"):
        go(tmp_path, Protocol(3, [0]))


def with_copy(root: Path) -> None:
    make_experiment(root)
    shutil.copy(root / "data" / "benign_0.png", root / "data" / "copy.png")
    with (root / "data" / "labels.csv").open("a") as file:
        file.write("copy.png,benign,somebody\n")


def part_of(datalist: Datalist, image: str) -> str:
    return next(p for p in ("training", "validation", "test") if image in [r["image"] for r in datalist.records(p)])


def test_copies_and_their_patients_stay_together(tmp_path: Path) -> None:
    with_copy(tmp_path)
    for datalist in deal(make_experiment(tmp_path), Protocol(4, [0])):
        assert len({part_of(datalist, name) for name in ("copy.png", "benign_0.png", "benign_1.png")}) == 1


def test_given_parts_that_leak_are_dealt_out_anew_but_not_kept_apart(tmp_path: Path) -> None:
    with_copy(tmp_path)
    table = tmp_path / "data" / "labels.csv"
    header, *rows = table.read_text().splitlines()
    splits = ["train", "val", "test"]
    given = [f"{row},{'test' if row.startswith('copy') else splits[i // 2 % 2]}" for i, row in enumerate(rows)]
    table.write_text("\n".join([f"{header},split", *given]) + "\n")
    for datalist in deal(make_experiment(tmp_path), Protocol(4, [0])):
        assert part_of(datalist, "copy.png") == part_of(datalist, "benign_0.png")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(DataError, match=r"same picture: .*copy\.png"):
        deal(make_experiment(tmp_path), Protocol(4, [0], parts=("training", "validation")))
    with pytest.raises(DataError, match="same picture"):
        deal(make_experiment(tmp_path), Protocol(1, [0, 1]))


def test_leakage_that_is_allowed_is_recorded(tmp_path: Path, runs: FakeRuns) -> None:
    leave = runs.leave_results

    def leave_remark(mode: str, options: dict[str, Any]) -> None:
        leave(mode, options)
        if mode == "evaluate":
            file = Path(options["output_dir"]) / "metrics.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), "leakage": {"groups": 2}}))

    runs.leave_results = leave_remark  # type: ignore[method-assign]
    report, _ = go(tmp_path, Protocol(2, [0]))
    assert report["leakage"] == {"groups": 2}
