"""What `pip install` gives: with a compiler a platform wheel with the C kernel, without one the portable path.

Both are installed into clean virtual environments that borrow the dependencies of the environment at hand.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PARTS = ("medmamba_monai", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="uses POSIX paths and tools")]

# Runs in the clean environment: one small scan against the reference, its backend, and the warnings on the way.
PROBE = """
import json, sys, warnings
import torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import medmamba_monai
    from medmamba_monai.ops import directional_scan, index_table
    from medmamba_monai.ops.selective_scan import cpu, dispatch
    order = index_table("cross", (5, 7))
    draw = torch.Generator().manual_seed(0)
    u, dt, A, B, C, D, weight, bias = (torch.randn(*shape, generator=draw) for shape in (
        (2, 35, 12), (2, 35, 4, 2), (4, 12, 16), (2, 35, 4, 16), (2, 35, 4, 16), (4, 12), (4, 12, 2), (4, 12)))
    arguments = (u, dt, -A.abs(), B, C, D, weight, bias, order)
    y = directional_scan(*arguments)
    again = directional_scan(*arguments)
truth = directional_scan(*(t.double() for t in arguments[:-1]), order, backend="reference")
json.dump({
    "file": medmamba_monai.__file__,
    "backend": dispatch.resolve("cpu"),
    "reason": cpu.unavailable(torch.device("cpu")),
    "error": ((y - truth).abs().max() / truth.abs().max()).item(),
    "warnings": [str(w.message) for w in caught if "medmamba" in str(w.message)],
}, sys.stdout)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what is released, without anything built in place."""
    folder = tmp_path / "source"
    folder.mkdir()
    for part in PARTS:
        path = REPOSITORY / part
        if path.is_dir():
            shutil.copytree(path, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.dll"))
        elif path.exists():
            shutil.copy2(path, folder / part)
    return folder


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Site-packages of a new environment in which only this package is its own."""
    folder = tmp_path / "clean"
    venv.EnvBuilder(with_pip=False).create(folder)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (site / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return site


def quiet_environment(tmp_path: Path) -> dict[str, str]:
    """No compiler on the PATH, and none named."""
    empty = tmp_path / "no_programs"
    empty.mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if k not in ("CC", "CXX", "CFLAGS", "LDSHARED", "PYTHONPATH")}
    return {**kept, "PATH": str(empty)}


def pip(*arguments: str, environment: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    result = subprocess.run(
        command, env=environment, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def build(source: Path, folder: Path, environment: dict[str, str] | None = None) -> tuple[Path, str]:
    """Build a wheel with the setuptools at hand: no network is needed."""
    log = pip(
        "wheel", "--verbose", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source),
        environment=environment,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel, log


def probe(clean: Path, wheel: Path, tmp_path: Path) -> dict[str, object]:
    import json

    pip("install", "--no-deps", "--target", str(clean), str(wheel))
    python = clean.parents[2] / "bin" / "python"
    result = subprocess.run(
        [str(python), "-c", PROBE], cwd=tmp_path, env=quiet_environment(tmp_path), check=False, text=True,
        capture_output=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    outcome: dict[str, object] = json.loads(result.stdout)
    assert str(outcome["file"]).startswith(str(clean))
    return outcome


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("clang")), reason="no C compiler")
def test_a_wheel_brings_the_c_kernel(source: Path, clean: Path, tmp_path: Path) -> None:
    wheel, _ = build(source, tmp_path / "wheels")
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    libraries = [name for name in names if name.endswith((".so", ".dylib"))]
    assert libraries == ["medmamba_monai/ops/selective_scan/_scan_cpu.so"]
    assert "medmamba_monai/ops/selective_scan/csrc/scan.c" in names
    outcome = probe(clean, wheel, tmp_path)
    assert outcome["reason"] is None
    assert outcome["backend"] == "cpu"
    assert outcome["warnings"] == []
    assert float(str(outcome["error"])) <= 1e-5


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("clang")), reason="no C compiler")
def test_the_source_distribution_builds_that_wheel(source: Path, tmp_path: Path) -> None:
    """It holds all that is compiled, and nothing that was built or is only for developers' machines."""
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--skip-dependency-check"]
    done = subprocess.run(
        [*command, "--outdir", str(tmp_path / "dist"), str(source)], check=False, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.split("/", 1)[-1] for name in packed.getnames()}
    sources = REPOSITORY / "medmamba_monai" / "ops" / "selective_scan" / "csrc"
    assert {f"medmamba_monai/ops/selective_scan/csrc/{path.name}" for path in sources.iterdir()} <= names
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md"} <= names
    assert not {name for name in names if name.endswith((".so", ".pyc"))}
    wheel, _ = build(archive, tmp_path / "wheels")
    with zipfile.ZipFile(wheel) as contents:
        assert "medmamba_monai/ops/selective_scan/_scan_cpu.so" in contents.namelist()


def test_without_a_compiler_the_portable_path_is_installed(source: Path, clean: Path, tmp_path: Path) -> None:
    wheel, log = build(source, tmp_path / "wheels", quiet_environment(tmp_path))
    assert wheel.name.endswith("-py3-none-any.whl")
    assert log.count("built without its C kernel") == 1
    outcome = probe(clean, wheel, tmp_path)
    assert "C compiler" in str(outcome["reason"])
    assert outcome["backend"] == "portable"
    assert len(outcome["warnings"]) == 1  # type: ignore[arg-type]
    assert float(str(outcome["error"])) <= 1e-5
