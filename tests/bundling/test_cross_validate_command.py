"""The verb cross_validate: what is refused, what is printed, how it ends; once for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from medmamba_monai import cli
from medmamba_monai.bundling import cross_validate_command, experiment
from medmamba_monai.bundling.subprocesses import Interrupted
from medmamba_monai.data.phantom import write_phantoms
from medmamba_monai.handlers import default_tracking_uri

from .experiments import FakeRuns, bundle_in, make_experiment


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRuns:
    """Runs that only write, and an experiment that is not read from a bundle."""
    fake = FakeRuns()
    monkeypatch.setattr(experiment, "run_bundle", fake)
    asked: list[dict[str, Any]] = []

    def opened(bundle: Path, folder: Path, options: dict[str, Any], *further: Any) -> Any:
        asked.append(options)
        return make_experiment(tmp_path, options)

    monkeypatch.setattr(cross_validate_command, "open_experiment", opened)
    return fake


def command(root: Path, *words: str) -> int:
    return cli.main(
        [
            "cross_validate",
            str(bundle_in(root)),
            "--output_dir",
            str(root / "out"),
            "--dataset_dir",
            str(root / "data"),
            *words,
        ]
    )


def test_table_and_places(tmp_path: Path, runs: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "--folds", "3", "--seeds", "0", "4", "--epochs", "2") == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    rows = {line.rpartition("  ")[0].strip()[:22].strip(): line for line in printed.splitlines()}
    assert f"{report['balanced_accuracy']:.4f}" in next(
        line for line in rows.values() if line.startswith("pooled folds, ensemble of 2 seeds")
    )
    spread = report["spread"]["folds"]["auc"]
    assert f"{spread['mean']:.4f} ± {spread['sd']:.4f}" in printed
    assert "fold 3 " in printed
    assert "seed 4 " in printed
    assert "24 images were tested. sd is no confidence interval" in printed
    assert str(tmp_path / "out" / "predictions.csv") in printed
    assert all(options["epochs"] == 2 for _, options in runs.asked)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "0"], "--folds"),
        (["--folds", "1"], "one split and one seed"),
        (["--seeds", "1", "1"], "twice"),
        (["--epochs"], "--epochs has no value"),
        (["--folds", "99"], "too few for 99 folds"),
    ],
)
def test_refusals(
    words: list[str], message: str, tmp_path: Path, runs: FakeRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, *words) in (cli.EXIT_CONFIG, cli.EXIT_DATA)
    assert message in capsys.readouterr().err
    assert runs.asked == []


def test_the_part_to_test_is_not_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "--split", "validation") == cli.EXIT_CONFIG
    assert "split is set by this command" in capsys.readouterr().err


def test_a_signal_ends_it_with_75(tmp_path: Path, runs: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(mode: str, options: dict[str, Any], log: Path) -> int:
        raise Interrupted("stopped by SIGTERM", remedy="the same command goes on from here")

    runs.before = stop
    assert command(tmp_path, "--folds", "3") == 75
    assert "the same command goes on" in capsys.readouterr().out


def test_an_unknown_word_is_still_refused_by_other_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["export", "b", "--format", "onnx", "--epochs", "3"])
    assert "unrecognized arguments: --epochs 3" in capsys.readouterr().err


@pytest.mark.slow
def test_two_folds_for_real(bundle: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "films", per_class=8, size=40)
    words = ["--dataset_dir", str(tmp_path / "films"), "--output_dir", str(tmp_path / "cv"), "--folds", "2"]
    words += ["--epochs", "1", "--image_size", "32", "--batch_size", "4", "--device", "cpu", "--num_workers", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "medmamba_monai", "cross_validate", str(bundle), *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads((tmp_path / "cv" / "metrics.json").read_text())
    assert report["n"] == 16
    assert "folds, mean ± sd" in done.stdout

    client = MlflowClient(default_tracking_uri(tmp_path / "cv"))
    (experiment_id,) = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    found = client.search_runs([experiment_id])
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert [run.info.status for run in found] == ["FINISHED"] * 5
    assert len(parents) == 1
    assert parents[0].data.metrics["pooled_accuracy"] == pytest.approx(report["accuracy"])
    assert parents[0].data.metrics["folds_sd_accuracy"] == pytest.approx(report["spread"]["folds"]["accuracy"]["sd"])
    children = {run.info.run_name: run.data.tags["mlflow.parentRunId"] for run in found if run not in parents}
    names = {f"fold {fold} seed 0{what}" for fold in (1, 2) for what in ("", ", test part")}
    assert children == dict.fromkeys(names, parents[0].info.run_id)
