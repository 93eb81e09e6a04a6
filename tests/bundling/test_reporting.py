"""The reason of a failure is found below what MONAI wraps around it, and ends the output of the process."""

from __future__ import annotations

import os
import subprocess
import sys

from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.errors import ConfigError, DataError

PROGRAM = """
from medmamba_monai.bundling.reporting import explain_failures
from medmamba_monai.errors import DataError
explain_failures(); explain_failures()
try:
    raise DataError("no images", where="folder x")
except DataError as error:
    raise RuntimeError("Failed to evaluate ConfigExpression") from error
"""


def test_the_deepest_error_of_the_package_is_found() -> None:
    inner = DataError("inner")
    inner.__cause__ = OSError("disk")
    outer = ConfigError("outer")
    outer.__cause__ = inner
    wrapped = RuntimeError("wrapped")
    wrapped.__context__ = outer
    assert root_cause(wrapped) is inner
    assert root_cause(ValueError("other")) is None


def test_a_loop_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert root_cause(first) is None


def failing(**variables: str) -> str:
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 1
    return done.stderr


def test_the_reason_is_all_that_is_printed() -> None:
    assert failing().strip() == "DataError: folder x: no images"


def test_the_trace_is_shown_on_request() -> None:
    printed = failing(MEDMAMBA_TRACEBACK="1")
    assert "Traceback" in printed
    assert printed.splitlines()[-1] == "DataError: folder x: no images"
