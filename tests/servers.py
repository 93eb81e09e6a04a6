"""Real servers of MLflow on this machine for tests, each with its own process group and a log that failures show."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LIMIT = 120  # seconds until a server that does not answer fails its test


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(arguments: Sequence[str], folder: Path, health: str, environment: dict[str, str]) -> Iterator[str]:
    """Run ``python -m mlflow ARGUMENTS`` until the block ends; yields its address once ``health`` answers."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", *arguments, "--host", "127.0.0.1", "--port", str(port)]
    log = folder / f"{arguments[0]}.log"
    own = {
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),  # it calls uvicorn
    }
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **own, **environment},
        )  # fmt: skip
        try:
            _wait(server, address + health, log)
            yield address
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(20)


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the server does not answer:\n{log.read_text(errors='replace')[-3000:]}")
