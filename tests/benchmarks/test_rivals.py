"""The choice on validation, what is left out when it is done, and the benchmark end to end on phantoms."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.benchmarks import accuracy, rivals
from medmamba_monai.benchmarks.machine import read_rows
from medmamba_monai.data.phantom import write_phantoms
from medmamba_monai.errors import MedMambaError

ROOT = Path(__file__).resolve().parents[2]
SMALL_RIVAL = {
    "_target_": "monai.networks.nets.DenseNet",
    "spatial_dims": 2,
    "in_channels": "@in_channels",
    "out_channels": "$len(@classes)",
    "init_features": 8,
    "growth_rate": 4,
    "block_config": [2, 2],
}


@pytest.fixture
def job(tmp_path: Path) -> rivals.Job:
    """A network on a pack that does not exist."""
    return rivals.Job(
        "pack", "MedMamba nano", tmp_path, tmp_path / "pack" / "nano", tmp_path, rivals.Budget(32, 1, 2), [3, 4]
    )


class Runs:
    """Stands for bundle runs: notes each and writes scores as the learning rate says."""

    def __init__(self, scores: dict[float, float]) -> None:
        self.scores, self.seen, self.rate = scores, [], 0.0

    def __call__(self, root: Path, mode: str, options: dict[str, Any], log: Path, threads: int) -> float:
        if mode == "train":
            self.rate = options["learning_rate"]
            self.seen.append(("train", self.rate, options["seed"], options.get("resume", False)))
        else:
            self.seen.append((options["split"], self.rate))
            options["output_dir"].mkdir(parents=True)
            (options["output_dir"] / "metrics.json").write_text(
                json.dumps({"balanced_accuracy": self.scores[self.rate]})
            )
        log.parent.mkdir(parents=True, exist_ok=True)
        return 1.0


def test_the_test_part_is_looked_at_with_the_chosen_recipe_alone(
    job: rivals.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs({1e-3: 0.6, 3e-4: 0.7})
    monkeypatch.setattr(rivals, "_bundle", runs)
    rivals._compete(job, 1)
    assert json.loads((job.work / "chosen.json").read_text()) == {"candidate": 1, "validation": [0.6, 0.7]}
    assert [run for run in runs.seen if run[0] == "train"] == [
        ("train", 1e-3, 3, False),
        ("train", 3e-4, 3, False),
        ("train", 3e-4, 4, False),
    ]
    assert [run for run in runs.seen if run[0] == "test"] == [("test", 3e-4)] * 2
    runs.seen.clear()
    rivals._compete(job, 1)
    assert runs.seen == []  # all of it was there


def test_a_single_recipe_needs_no_choice(job: rivals.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs({1e-3: 0.6})
    monkeypatch.setattr(rivals, "_bundle", runs)
    rivals._compete(job._replace(budget=rivals.Budget(32, 1, 1)), 1)
    assert [run[0] for run in runs.seen] == ["train", "test"] * 2


def test_an_interrupted_training_goes_on(job: rivals.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs({1e-3: 0.6, 3e-4: 0.5})
    monkeypatch.setattr(rivals, "_bundle", runs)
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(rivals, "_bundle", lambda root, mode, options, log, threads: _interrupt(options))
        rivals._compete(job, 1)
    rivals._compete(job, 1)
    assert runs.seen[0] == ("train", 1e-3, 3, True)
    spent = [json.loads((rivals._folder(job, 0, seed) / "trained.json").read_text())["cpu_seconds"] for seed in (3, 4)]
    assert spent == [None, 1.0]  # what the interrupted run took is not known


def _interrupt(options: dict[str, Any]) -> float:
    options["ckpt_dir"].mkdir(parents=True)
    raise KeyboardInterrupt


def test_runs_of_another_budget_are_not_taken_for_this_one(job: rivals.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "_bundle", Runs({1e-3: 0.6, 3e-4: 0.5}))
    rivals._compete(job, 1)
    with pytest.raises(MedMambaError, match="image_size was 32 and is 64; epochs was 1 and is 9"):
        rivals._compete(job._replace(budget=rivals.Budget(64, 9, 2)), 1)


def test_a_run_that_fails_is_named(job: rivals.Job, tmp_path: Path) -> None:
    with pytest.raises(MedMambaError, match=r"a bundle run failed: .*train\.json"):
        rivals._bundle(tmp_path / "nothing", "train", {}, tmp_path / "log", 1)


@pytest.mark.slow
def test_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_phantoms(tmp_path / "data" / "pack", per_class=16, size=40)
    recipe = accuracy.Recipe("chest_xray_classification", "grey", image_size=32, epochs=1)
    monkeypatch.setitem(rivals.RECIPES, "pack", recipe)
    monkeypatch.setitem(rivals.NETWORKS, "small rival", SMALL_RIVAL)
    arguments = argparse.Namespace(
        data=tmp_path / "data", packs=["pack"], networks=["MedMamba nano", "small rival"], seeds=[0], image_size=32,
        epochs=1, candidates=1, jobs=1, bundles=ROOT / "bundles", out=tmp_path / "rivals.csv", work=tmp_path / "work",
    )  # fmt: skip
    rivals.run(arguments)
    rows = read_rows(arguments.out)
    assert [row["network"] for row in rows] == ["MedMamba nano", "small rival", accuracy.BASELINE]
    assert int(rows[0]["parameters"]) > int(rows[1]["parameters"]) > 0
    assert all(0 <= float(row["balanced_accuracy"]) <= 1 for row in rows)
    assert "| small rival |" in (tmp_path / "rivals.md").read_text(encoding="utf-8")
