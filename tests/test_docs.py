"""Code blocks of README.md and docs/ do what they say: Python ones in one process, shell ones in a copy of the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medmamba_monai.data.phantom import write_phantoms

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FOLLOWED_ELSEWHERE = {"adding_a_modality.md": "bundles/test_adding_a_modality.py"}
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def with_blocks(language: str) -> list[Path]:
    return [page for page in PAGES if page.exists() and blocks(page, language)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the bundles and two small labelled folders of images, as the pages assume."""
    shutil.copytree(ROOT / "bundles", tmp_path / "bundles", ignore=shutil.ignore_patterns("eval", "models"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    write_phantoms(tmp_path / "images", per_class=12, size=48)
    write_phantoms(tmp_path / "new_images", per_class=2, seed=100, size=48)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", with_blocks("python"), ids=lambda p: p.name)
def test_python_blocks_run(page: Path, workplace: Path) -> None:
    namespace: dict[str, object] = {"__name__": "docs"}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), namespace)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in with_blocks("bash") if page.name not in FOLLOWED_ELSEWHERE], ids=lambda p: p.name
)
def test_shell_blocks_run(page: Path, workplace: Path) -> None:
    """With one epoch of small images in place of what the page says, so that it takes seconds."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for code in blocks(page, "bash"):
        quick = re.sub(r"--image_size \d+", "--image_size 32", re.sub(r"--epochs \d+", "--epochs 1", code))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", quick], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_something_was_found() -> None:
    assert all((ROOT / "tests" / test).is_file() for test in FOLLOWED_ELSEWHERE.values())
    assert len(with_blocks("python")) >= 3
    assert len(with_blocks("bash")) >= 2
