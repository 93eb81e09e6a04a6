"""The verb tune: what is refused, what is printed; once for real, killed in the middle and gone on with."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from medmamba_monai import cli
from medmamba_monai.bundling import cross_validate_command, experiment
from medmamba_monai.bundling.splits import Splits
from medmamba_monai.data.phantom import write_phantoms
from medmamba_monai.errors import DataError
from medmamba_monai.handlers import default_tracking_uri

from .experiments import bundle_in, make_experiment
from .test_tuning import FakeTrainings

pytest.importorskip("optuna")

SPACE = '{"learning_rate": {"low": 1e-4, "high": 1e-2, "log": true}}'
CONFIG = {"learning_rate": 1e-3, "epochs": 9}
LIMIT = 240.0


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTrainings:
    """Trainings that only write scores, of an experiment that is not read from a bundle."""
    fake = FakeTrainings()
    monkeypatch.setattr(experiment, "run_bundle", fake)

    def opened(bundle: Path, folder: Path, options: dict[str, Any], *further: Any) -> Any:
        made = make_experiment(tmp_path, options)
        made.config.update(CONFIG)  # type: ignore[attr-defined]
        return made

    monkeypatch.setattr(cross_validate_command, "open_experiment", opened)
    return fake


def command(root: Path, *words: str) -> int:
    return cli.main(
        ["tune", str(bundle_in(root)), "--output_dir", str(root / "out"), "--dataset_dir", str(root / "data"), *words]
    )


def test_the_best_values_and_the_command_to_train_with(
    tmp_path: Path, trainings: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        command(
            tmp_path, "--space", SPACE, "--trials", "3", "--batch_size", "4", "--tracking_uri", "https://a:secret@b"
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "secret" not in printed
    assert "3 trials: 3 complete, 0 pruned, 0 failed" in printed
    assert "so it is optimistic. The test part was not looked at" in printed
    words = shlex.split(printed.splitlines()[-1])
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options["--batch_size"] == "4"
    assert str(tmp_path / "out" / "best.json") in words[words.index("--config_file") + 1]
    assert options["--datalist"] == str(tmp_path / "out" / "datalist.json")
    assert all(options["batch_size"] == 4 for options in trainings.asked)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--space", '{"split": ["test", "validation"]}'], "none may see the test part"),
        (["--space", SPACE, "--learning_rate", "0.1"], "fixed value"),
        (["--space", SPACE, "--trials", "0"], "0 trials"),
        (["--space", "nowhere.json"], "cannot be read"),
    ],
)
def test_refusals(
    words: list[str], message: str, tmp_path: Path, trainings: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, *words) == cli.EXIT_CONFIG
    assert message in capsys.readouterr().err
    assert trainings.asked == []


def test_the_test_part_is_no_objective(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "tune",
        str(bundle_in(tmp_path)),
        "--space",
        SPACE,
        "--split",
        "test",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert cli.main(words) == cli.EXIT_CONFIG
    assert "split is set by this command" in capsys.readouterr().err


def test_another_space_does_not_mix_with_the_study(
    tmp_path: Path, trainings: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "--space", SPACE, "--trials", "1") == 0
    assert command(tmp_path, "--space", SPACE.replace("1e-2", "1e-1"), "--trials", "2") == cli.EXIT_CONFIG
    assert "space was" in capsys.readouterr().err


def test_data_that_cannot_be_used_do_not_block_the_folder(
    tmp_path: Path, trainings: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unusable(self: Splits) -> None:
        raise DataError("planted")

    with monkeypatch.context() as planted:
        planted.setattr(Splits, "refuse_leakage", unusable)
        assert command(tmp_path, "--space", SPACE, "--trials", "1") == cli.EXIT_DATA
    assert not (tmp_path / "out" / "plan.json").exists()


def test_no_bundle_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune", str(tmp_path / "no"), "--space", SPACE]) == cli.EXIT_CONFIG
    assert "configs/train.json" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_killed_and_gone_on_with_for_real(bundle: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "films", per_class=8, size=40)
    out = tmp_path / "tuning"
    words = [sys.executable, "-m", "medmamba_monai", "tune", str(bundle), "--dataset_dir", str(tmp_path / "films")]
    words += ["--output_dir", str(out), "--space", SPACE, "--trials", "2", "--epochs", "2", "--image_size", "32"]
    words += ["--batch_size", "4", "--device", "cpu", "--num_workers", "0", "--warmup_epochs", "0"]
    tuner = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + LIMIT
        while not (out / "trial_000" / "models" / "checkpoint.pt").exists():
            assert tuner.poll() is None, tuner.stderr and tuner.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        os.kill(tuner.pid, signal.SIGKILL)
        tuner.wait()
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 trials: 2 complete" in done.stdout
    log = (out / "trial_000" / "train.log").read_text()
    assert "resuming from" in log or "epoch 2 of 2" in log  # the killed one ended by itself, or was gone on with
    assert set(json.loads((out / "best.json").read_text())) == {"learning_rate"}
    running = [entry.read_bytes() for entry in Path("/proc").glob("[0-9]*/cmdline") if entry.is_file()]
    assert not any(str(out).encode() in line for line in running)

    client = MlflowClient(default_tracking_uri(out))
    (experiment_id,) = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    found = client.search_runs([experiment_id])
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["trials_complete"] == 2
    children = {run.info.run_name for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    assert children == {"trial 0", "trial 1"}
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {"best.json", "trials.csv"}
