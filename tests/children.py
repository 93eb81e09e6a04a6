"""Forked processes of tests: killed, out of disk space, ranks of a group; one that hangs fails its test."""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

LIMIT = 90  # seconds until a hang is a failure


def start(work: Callable[[], Any]) -> int:
    """Fork; returns the child's id. The child ends with 0, with the code of SystemExit, or with 1 after any error."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            torch.set_num_threads(1)  # libgomp waits for ever for the threads that only the parent has
            work()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:  # noqa: BLE001 (a child reports everything and never runs the parent's tests)
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def wait(pid: int) -> int:
    """The child's exit status, negative for a signal."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    kill(pid)
    raise AssertionError("a process hangs")


def run(work: Callable[[], Any]) -> int:
    """Start and wait."""
    return wait(start(work))


def kill(pid: int) -> None:
    """Kill -9, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def kill_at_work(work: Callable[[Callable[[], object]], Any], seconds: float) -> None:
    """Start work that calls its argument after every round; kill it some seconds after the first round."""
    reader, writer = os.pipe()
    pid = start(lambda: work(lambda: os.write(writer, b".")))
    os.close(writer)
    try:
        assert select.select([reader], [], [], LIMIT)[0], "the process does nothing"
        time.sleep(seconds)
    finally:
        kill(pid)
        os.close(reader)
