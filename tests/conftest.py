"""Fixtures every test may use: the shared real images and golden tensors, found through one environment variable."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

SHARED_VARIABLE = "MEDMAMBA_SHARED"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test draws the same numbers, whatever ran before it in its process."""
    random.seed(0)
    np.random.seed(0)  # the global generator is the one that libraries draw from
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with data/ and golden/; skips when the variable is unset, fails when it points to nothing."""
    value = os.environ.get(SHARED_VARIABLE)
    if not value:
        pytest.skip(f"{SHARED_VARIABLE} is not set: no real images or golden tensors to test on")
    folder = Path(value)
    if not (folder / "data").is_dir():
        pytest.fail(f"{SHARED_VARIABLE}={value}, but {folder / 'data'} is not a folder")
    return folder
