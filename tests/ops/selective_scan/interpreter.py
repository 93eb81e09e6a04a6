"""Triton decides when it is imported whether it interprets: what needs the interpreter runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def device() -> str:
    """Where kernels run in this process; skips where they do not."""
    if INTERPRETED:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    pytest.skip("no GPU here, and the interpreter needs a process of its own: see test_in_the_interpreter")


def run_in_the_interpreter(file: str, selection: str) -> None:
    """Run the selected tests of a file again, interpreted.

    The interpreter of triton 3.7.1 runs with numpy 2.4; older ones may not (triton's issue 9171), and then fail here.
    """
    if INTERPRETED:
        pytest.skip("this is the interpreter's process")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", selection, file]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[3]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
