"""docs/adding_a_modality.md, followed to the letter: its file is written, its row added, its commands are typed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medmamba_monai.data.phantom import write_phantoms

from .conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "adding_a_modality.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w/.]+)`:\n\n```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^```text\n( {4}Row\(\"(\w+)\".*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = "hand_xray_classification"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a contributor has: the repository without outputs of runs, and images."""
    kept = shutil.ignore_patterns("models", "eval", "__pycache__")
    for folder in ("configs", "bundles", "tests", "medmamba_monai"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=kept)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    write_phantoms(tmp_path / "images", per_class=12, size=48)
    write_phantoms(tmp_path / "new_images", per_class=2, seed=100, size=48)
    return tmp_path


def write_files(clone: Path) -> list[str]:
    """Write each file the page shows under its name."""
    files = FILE.findall(PAGE)
    for name, content in files:
        (clone / name).write_text(content, encoding="utf-8")
    return [name for name, _ in files]


def add_row(clone: Path) -> None:
    """Put the page's row into the table, in alphabetical order."""
    ((row, name),) = ROW.findall(PAGE)
    table = clone / "tests" / "bundles" / "test_table.py"
    text = table.read_text(encoding="utf-8")
    later = [m.start() for m in re.finditer(r"^ {4}Row\(\s*\"(\w+)\"", text, re.MULTILINE) if m.group(1) > name]
    table.write_text(text[: later[0]] + row + text[later[0] :], encoding="utf-8")


def type_commands(clone: Path, commands: str) -> None:
    """Run a block of the page, with one epoch of small images."""
    quick = re.sub(r"--image_size \d+", "--image_size 32", re.sub(r"--epochs \d+", "--epochs 1", commands))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    script = ["bash", "-euo", "pipefail", "-c", quick]
    done = subprocess.run(script, cwd=clone, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, f"{commands}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_the_page_has_the_steps() -> None:
    assert [name for name, _ in FILE.findall(PAGE)] == ["configs/modalities/hand_xray.json"]
    assert [name for _, name in ROW.findall(PAGE)] == [NAME]
    assert len(COMMANDS.findall(PAGE)) == 3


def test_its_overlay_makes_a_bundle_beside_the_others(clone: Path) -> None:
    from medmamba_monai.bundling.build import build, differences

    others = sorted(path.name for path in (clone / "bundles").iterdir())
    write_files(clone)
    changes = build(clone)
    assert sorted(path.name for path in (clone / "bundles").iterdir()) == sorted([*others, NAME])
    assert {change.split()[1].split("/")[1] for change in changes} == {NAME, "lock.json"}
    assert differences(clone) == []
    metadata = json.loads((clone / "bundles" / NAME / "configs" / "metadata.json").read_text())
    assert metadata["name"] == NAME


@pytest.mark.slow
def test_following_the_page_trains_evaluates_and_tests_the_bundle(clone: Path) -> None:
    write_files(clone)
    add_row(clone)
    for commands in COMMANDS.findall(PAGE):
        type_commands(clone, commands)
    bundle = clone / "bundles" / NAME
    assert json.loads((bundle / "models" / "model.json").read_text())["class_names"] == ["nodules", "vessels"]
    assert json.loads((bundle / "eval" / "metrics.json").read_text())["n"] > 0
    assert len((clone / "predictions" / "predictions.csv").read_text().splitlines()) == 5
