"""A small copy of the repository's configs, for tests that edit them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def repository() -> Path:
    """The repository itself; only to read."""
    return REPOSITORY


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the base and one overlay, nothing built."""
    root = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "configs" / "base", root / "configs" / "base")
    (root / "configs" / "modalities").mkdir()
    shutil.copy(REPOSITORY / "configs" / "modalities" / "chest_xray.json", root / "configs" / "modalities")
    return root
