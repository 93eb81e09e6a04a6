"""A bundle run in a process of its own: the command as a user types it, its log, and no process left behind.

Whatever starts several runs uses this: memory is freed between them, a crash ends one and not all, and what is run can
be repeated by hand. Imports errors only; needs fire, as MONAI's command line does.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from medmamba_monai.errors import MedMambaError

__all__ = [
    "INTERRUPTED",
    "Interrupted",
    "RunFailedError",
    "bundle_arguments",
    "finished",
    "last_error",
    "run_bundle",
    "run_process",
    "shown_command",
]

INTERRUPTED = 75  # what a training exits with that a signal ended after saving its state
SECONDS_BETWEEN_LOOKS = 0.2
MODULE = "medmamba_monai.bundling.supervised"
NO_STATUS = "-"
_PROGRESS = re.compile(r"epoch \d+ of \d+: .*")
_ERROR = re.compile(r"^(\w+(?:\.\w+)*(?:Error|Exception|Interrupt)): ")
_FORWARDED = ("SIGINT", "SIGTERM")


class RunFailedError(MedMambaError):
    """A bundle run ended with an error; the message names its log."""


class Interrupted(MedMambaError):
    """A signal ended the runs; what was done is kept."""


@dataclass(frozen=True)
class Child:
    """A run at work, as what watches it sees it.

    Attributes:
        process: the process.
    """

    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Ask for an end after the present iteration; the training saves its state."""
        if self.process.poll() is None:
            self.process.terminate()


def bundle_arguments(
    bundle: Path, mode: str, options: Mapping[str, Any], further: Sequence[str | Path] = ()
) -> list[str]:
    """What stands behind ``python -m monai.bundle`` to run a bundle.

    Args:
        bundle: its folder.
        mode: "train", "evaluate" or "inference".
        options: keys to override, nested ones as ``train#trainer#max_epochs``; the run gets exactly these values.
        further: config files given after those of the mode.

    Example:
        >>> bundle_arguments(Path("b"), "train", {"seed": 3, "run_name": "7", "image_size": [32, 40]})[3:]
        ['--bundle_root', 'b', '--seed', '3', '--run_name', "'7'", '--image_size', '[32, 40]']
    """
    names = ["train", "evaluate"] if mode == "evaluate" else [mode]
    files = [str(bundle / "configs" / f"{name}.json") for name in names] + [str(file) for file in further]
    arguments = ["run", "--config_file", files[0] if len(files) == 1 else str(files)]
    for name, value in {"bundle_root": bundle, **options}.items():
        text = _argument(value)
        arguments += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
    return arguments


def _argument(value: Any) -> str:
    """The text that the command line's parser, which takes texts for Python values where it can, turns back."""
    from fire.parser import DefaultParseValue

    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str):
        return repr(value)
    return value if DefaultParseValue(value) == value else repr(value)


def shown_command(arguments: Sequence[str]) -> str:
    """The command for people, to paste into a shell.

    Example:
        >>> shown_command(["run", "--run_name", "a b"])
        "python -m monai.bundle run --run_name 'a b'"
    """
    return shlex.join(["python", "-m", "monai.bundle", *arguments])


def run_bundle(
    arguments: Sequence[str],
    log: Path | None = None,
    *,
    watch: Callable[[Child], None] | None = None,
    show: Callable[[str], None] | None = None,
    keep_open: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a bundle in a process and wait for its end.

    SIGINT and SIGTERM are passed on once, and the process is waited for: a training saves its state first. If this
    process is killed, the other ends by itself soon after, saving its state, too.

    Args:
        arguments: of `bundle_arguments`.
        log: file for all that the run prints, begun anew, with its exit status beside it (see `finished`); None: it
            prints to the terminal.
        watch: called several times a second with the run at work, which it may stop.
        show: called with each line on an epoch, such as "epoch 3 of 50: loss 0.61, val_auc 0.83, 4.1 s".
        keep_open: file descriptors that the run inherits, as those of locks that it shall hold, too.
        environment: variables for the run besides those of this process; unlike arguments, nobody else sees them.

    Returns:
        The exit status; 75 for a training that was stopped.

    Raises:
        Interrupted: this process was sent a signal meanwhile.
    """
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        _status_file(log).unlink(missing_ok=True)
    status = NO_STATUS if log is None else str(_status_file(log))
    return run_process(
        [sys.executable, "-m", MODULE, status, str(os.getpid()), *arguments],
        log,
        watch=watch,
        show=show,
        keep_open=keep_open,
        environment=environment,
    )


def run_process(
    command: Sequence[str],
    log: Path | None,
    *,
    watch: Callable[[Child], None] | None = None,
    show: Callable[[str], None] | None = None,
    keep_open: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run any command as `run_bundle` runs a bundle; without an exit status beside the log.

    Raises:
        Interrupted: this process was sent a signal meanwhile.
    """
    with _output(log) as stream, _forwarding() as signals:
        # a session of its own: Ctrl-C reaches it through this process only, and so once
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONWARNINGS": "ignore", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            pass_fds=tuple(keep_open),
        )
        try:
            signals.watch_over(process)
            position = 0
            while True:
                ended = process.poll() is not None
                if log is not None and show is not None:
                    position = _show_epochs(log, position, show)
                if ended:
                    break
                if watch is not None:
                    watch(Child(process))
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            if process.poll() is None:  # an error in watch or show: no process is left behind
                process.terminate()
                process.wait()
    if signals.received is not None:
        raise Interrupted(f"stopped by {signals.received}", remedy="the same command goes on from here")
    return process.returncode


def finished(log: Path) -> bool:
    """Whether the run with this log came to its end without an error."""
    try:
        return bool(json.loads(_status_file(log).read_text(encoding="utf-8"))["code"] == 0)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # it never ended by itself


def last_error(log: Path) -> str:
    """The last error that a log shows, in one line; "no message" where it shows none."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return next((line for line in reversed(lines) if _ERROR.match(line)), lines[-1] if lines else "no message")


def _status_file(log: Path) -> Path:
    return log.with_suffix(".status.json")


@contextmanager
def _output(log: Path | None) -> Iterator[Any]:
    if log is None:
        yield None
        return
    with log.open("wb") as stream:
        yield stream


def _show_epochs(log: Path, position: int, show: Callable[[str], None]) -> int:
    """Show the lines on epochs behind ``position`` and return where the next one begins."""
    with log.open("rb") as stream:
        stream.seek(position)
        text = stream.read()
    whole = text[: text.rfind(b"\n") + 1]
    for line in whole.decode("utf-8", errors="replace").splitlines():
        if found := _PROGRESS.search(line):
            show(found.group())
    return position + len(whole)


class _Signals:
    """Passes the first signal on to a process; a second one too, which then acts at once."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.received: str | None = None

    def watch_over(self, process: subprocess.Popen[bytes]) -> None:
        """From now on signals go to this process; one that came while it was being started does so now."""
        self.process = process
        if self.received is not None:
            process.send_signal(signal.Signals[self.received])

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


@contextmanager
def _forwarding() -> Iterator[_Signals]:
    signals = _Signals()
    previous: dict[signal.Signals, Any] = {}
    try:
        # only the main thread may set handlers; elsewhere signals are the caller's affair
        for name in _FORWARDED if threading.current_thread() is threading.main_thread() else ():
            number = signal.Signals[name]
            if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background job: Ctrl-C is not meant for it
                previous[number] = signal.signal(number, signals)
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
