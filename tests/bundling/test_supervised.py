"""monai.bundle under supervision: its arguments, its output and how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medmamba_monai.bundling import subprocesses, supervised
from medmamba_monai.bundling.subprocesses import finished, run_bundle


def test_status_of_runs_that_end_well_and_badly(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"imports": ["$import sys"], "run": ["$print(@said)", "$sys.exit(@code)"], "said": "?"}')
    log = tmp_path / "logs" / "a.log"
    arguments = ["run", "--config_file", str(config), "--said", "hello"]
    assert run_bundle([*arguments, "--code", "0"], log) == 0
    assert "hello" in log.read_text()
    assert finished(log)
    assert run_bundle([*arguments, "--code", "9"], log) == 9
    assert not finished(log)
    assert json.loads(log.with_suffix(".status.json").read_text()) == {"code": 9}


def test_errors_are_shown_and_text_statuses_count_as_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watched: list[int] = []
    monkeypatch.setattr(supervised, "watch_parent", watched.append)
    monkeypatch.setattr(sys, "argv", ["x"])
    status = tmp_path / "status.json"

    def fails(*args: object, **kwargs: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(supervised.runpy, "run_module", fails)
    assert supervised.main(status, 7, ["run"]) == 1
    assert sys.argv == ["monai.bundle", "run"]
    assert "ValueError: planted" in capsys.readouterr().err

    def leaves(*args: object, **kwargs: object) -> None:
        raise SystemExit("a reason")

    monkeypatch.setattr(supervised.runpy, "run_module", leaves)
    assert supervised.main(None, 7, []) == 1
    assert watched == [7, 7]
    assert "a reason" in capsys.readouterr().err
    assert json.loads(status.read_text()) == {"code": 1}


def test_a_parent_that_stays_is_no_reason_to_end() -> None:
    script = "import os, time; from medmamba_monai.bundling import supervised as s; s.SECONDS_BETWEEN_LOOKS = 0.01; "
    script += "s.watch_parent(os.getppid()); time.sleep(0.3)"
    assert subprocess.run([sys.executable, "-c", script], env=dict(os.environ)).returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a process keeps its parent's number")
def test_a_parent_that_is_gone_already_ends_it_at_once() -> None:
    script = "import os, time; from medmamba_monai.bundling import supervised as s; s.watch_parent(os.getpid()); "
    assert subprocess.run([sys.executable, "-c", script + "time.sleep(60)"], env=dict(os.environ)).returncode == -15


def test_a_run_is_told_who_started_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocesses, "run_process", lambda command, log, **further: commands.append(command))
    run_bundle(["run"], tmp_path / "a.log")
    assert commands[0][1:] == ["-m", supervised.__name__, str(tmp_path / "a.status.json"), str(os.getpid()), "run"]
