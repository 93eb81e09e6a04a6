"""The workflows of continuous integration and release: pinned, without secrets, and their commands exist."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import medmamba_monai
from medmamba_monai import doctor
from medmamba_monai.ops.selective_scan import cpu, dispatch

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PLATFORMS = {"manylinux_x86_64", "manylinux_aarch64", "macosx_arm64", "macosx_x86_64", "win_amd64"}


def load(name: str) -> dict[str, Any]:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    workflow: dict[str, Any] = yaml.safe_load(text)
    workflow["on"] = workflow.pop(True)  # what YAML 1.1 takes "on" for
    return workflow


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def test_both_are_there() -> None:
    assert [path.stem for path in FILES] == ["ci", "release"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_actions_are_pinned_and_say_their_version(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", line), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rights_are_few_and_time_is_limited(path: Path) -> None:
    workflow = load(path.stem)
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text(encoding="utf-8")
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 90
        assert job.get("permissions", {}) == ({"id-token": "write"} if name == "publish" else {})
        assert {step.get("uses", "").split("@")[0] for step in job["steps"]} - {""}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_commands_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    workflow = load(path.stem)
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    for command in commands:
        plain = re.sub(r"\$\{\{.*?\}\}", "it", command)
        assert subprocess.run(["bash", "-n"], input=plain, text=True, check=False).returncode == 0
        for module, verb in re.findall(r"python -m (medmamba_monai) (\w+)", command):
            importlib.import_module(f"{module}.{verb}")
    used = {row["target"] for job in workflow["jobs"].values() for row in _matrix(job) if "target" in row}
    assert used <= targets
    assert path.stem != "ci" or used == {"test", "test-all"}


def _matrix(job: dict[str, Any]) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = job.get("strategy", {}).get("matrix", {}).get("include", [])
    return rows


def test_every_platform_has_its_wheel_and_its_line_in_the_docs() -> None:
    rows = _matrix(load("release")["jobs"]["wheels"])
    assert {row["platform"] for row in rows} == PLATFORMS and len(rows) == len(PLATFORMS)
    assert len({row["runner"] for row in rows}) == len(rows)
    page = (ROOT / "docs" / "ops.md").read_text(encoding="utf-8")
    for platform in PLATFORMS:
        [line] = [line for line in page.splitlines() if f"`{platform}`" in line]
        assert "untested" in line or platform == "manylinux_x86_64"


def test_publishing_waits_for_a_tag_and_for_all_files() -> None:
    workflow = load("release")
    publish = workflow["jobs"]["publish"]
    assert workflow["on"]["push"] == {"tags": ["v*"]}
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/v')" and publish["needs"] == ["sdist", "wheels"]
    assert publish["environment"]["name"] == "pypi"
    uploads = [step["with"]["name"] for step in steps(workflow) if "upload-artifact" in step.get("uses", "")]
    [download] = [step for step in publish["steps"] if "download-artifact" in step.get("uses", "")]
    prefix = download["with"]["pattern"].removesuffix("*")
    assert len(uploads) == 2 and all(name.startswith(prefix) for name in uploads)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(("tag", "right"), [(f"v{medmamba_monai.__version__}", True), ("v99.0.0", False)])
def test_a_tag_must_be_the_version(tag: str, right: bool) -> None:
    [step] = [s for s in load("release")["jobs"]["sdist"]["steps"] if s.get("name") == "The tag is the version"]
    environment = {**os.environ, "GITHUB_REF_NAME": tag}
    done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=ROOT, env=environment, check=False)
    assert (done.returncode == 0) == right


def test_wheels_are_tested_by_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the C backend named, the doctor's verdict is that of the library: missing, it fails."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'test-command = "python -m medmamba_monai doctor"' in project
    assert 'test-environment = { MEDMAMBA_SCAN_BACKEND = "cpu" }' in project
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "cpu")
    monkeypatch.setattr(cpu, "_open", lambda: "its C library is not built")
    dispatch.unavailable.cache_clear()
    try:
        text, healthy = doctor.report()
    finally:
        dispatch.unavailable.cache_clear()
    assert not healthy and "its C library is not built" in text
