"""Processes that are started for runs: exact values on the command line, logs, signals passed on, nothing left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fire.parser import DefaultParseValue

from medmamba_monai.bundling import subprocesses
from medmamba_monai.bundling.subprocesses import (
    Child,
    Interrupted,
    bundle_arguments,
    finished,
    last_error,
    run_process,
    shown_command,
)

POLITE = """
import signal, sys, time
def leave(number, frame):
    print("saved after", signal.Signals(number).name, flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
print("ready", flush=True)
time.sleep(60)
"""
LIMIT = 30.0


def wait_for(ready: Any, what: str) -> None:
    end = time.monotonic() + LIMIT
    while not ready():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def alive(process: int) -> bool:
    """Whether a process is at work; one that ended and is not yet waited for is not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "value",
    ["plain", "7", "1e-3", "None", "true", "-1", "--x", "a b", "[1]", "é", "{'a': 1}", -2, 0.1, 1e-05, True, None]
    + [[32, 40], ["benign", "7"], {"_target_": "x", "n": [1, None]}],
)
def test_values_arrive_as_they_are(value: Any) -> None:
    *_, last = bundle_arguments(Path("b"), "train", {"key": value})
    assert DefaultParseValue(last.removeprefix("--key=")) == value
    assert type(DefaultParseValue(last.removeprefix("--key="))) is type(value)


def test_config_files_of_each_mode() -> None:
    assert bundle_arguments(Path("b"), "train", {})[2] == "b/configs/train.json"
    given = bundle_arguments(Path("b"), "evaluate", {}, [Path("mine.json")])
    assert given[2] == "['b/configs/train.json', 'b/configs/evaluate.json', 'mine.json']"
    assert shown_command(given).startswith("python -m monai.bundle run --config_file '[")


def test_log_lines_on_epochs_and_the_exit_status(tmp_path: Path) -> None:
    script = "import sys; print('x - epoch 1 of 2: loss 0.5'); print('else'); print('ValueError: no'); sys.exit(3)"
    shown: list[str] = []
    log = tmp_path / "a.log"
    assert run_process([sys.executable, "-c", script], log, show=shown.append) == 3
    assert shown == ["epoch 1 of 2: loss 0.5"]
    assert last_error(log) == "ValueError: no"
    assert not finished(log)
    assert last_error(tmp_path / "none.log") == "no message"


def test_a_watcher_may_stop_the_run(tmp_path: Path) -> None:
    log = tmp_path / "a.log"

    def watch(child: Child) -> None:
        if "ready" in log.read_text():
            child.stop()

    assert run_process([sys.executable, "-c", POLITE], log, watch=watch) == 75
    assert "saved after SIGTERM" in log.read_text()


def test_an_error_of_the_watcher_leaves_no_process(tmp_path: Path) -> None:
    found: list[int] = []

    def watch(child: Child) -> None:
        found.append(child.process.pid)
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        run_process([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "a.log", watch=watch)
    assert not alive(found[0])


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signals_are_passed_on_and_the_run_is_waited_for(name: str, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    sent: list[int] = []

    def watch(child: Child) -> None:
        if "ready" in log.read_text() and not sent:
            sent.append(child.process.pid)
            signal.raise_signal(signal.Signals[name])

    number = signal.Signals[name]
    outside = signal.signal(number, signal.default_int_handler)  # a background job of a shell ignores Ctrl-C
    try:
        with pytest.raises(Interrupted, match=f"stopped by {name}"):
            run_process([sys.executable, "-c", POLITE], log, watch=watch)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, outside)
    assert f"saved after {name}" in log.read_text()
    assert not alive(sent[0])


def test_works_in_a_thread_where_handlers_cannot_be_set(tmp_path: Path) -> None:
    codes: list[int] = []
    thread = threading.Thread(
        target=lambda: codes.append(run_process([sys.executable, "-c", "raise SystemExit(4)"], tmp_path / "a.log"))
    )
    thread.start()
    thread.join(LIMIT)
    assert codes == [4]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_a_killed_starter_takes_its_run_along(tmp_path: Path) -> None:
    """The supervised run notices that its parent is gone: here it stands for a training that saves and ends."""
    root = Path(subprocesses.__file__).parents[2]
    child = "\n".join(
        [
            "import os, pathlib",
            "from medmamba_monai.bundling import supervised",
            "supervised.watch_parent(os.getppid())",
            f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))",
            POLITE,
        ]
    )
    starter = "\n".join(
        [
            "import sys, pathlib",
            "from medmamba_monai.bundling.subprocesses import run_process",
            f"run_process([sys.executable, '-c', {child!r}], pathlib.Path({str(tmp_path / 'a.log')!r}))",
        ]
    )
    process = subprocess.Popen([sys.executable, "-c", starter], env={**os.environ, "PYTHONPATH": str(root)})
    log = tmp_path / "a.log"
    wait_for(lambda: log.is_file() and "ready" in log.read_text(), "the run")
    run = int((tmp_path / "pid").read_text())
    assert alive(run)
    process.kill()
    process.wait()
    wait_for(lambda: not alive(run), "the end of the run")
    assert "saved after SIGTERM" in log.read_text()


def test_variables_of_a_run_are_not_on_its_command_line(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    script = "import os, sys; print(os.environ['PLANTED'], os.environ['PYTHONWARNINGS'], sys.argv)"
    assert run_process([sys.executable, "-c", script], log, environment={"PLANTED": "secret"}) == 0
    assert log.read_text() == "secret ignore ['-c']\n"
    assert "PLANTED" not in os.environ
