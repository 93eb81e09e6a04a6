"""What setup.py tells the compilers of platforms that are not at hand: MSVC, Apple's clang, one without AVX."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import setuptools
from setuptools.errors import CompileError

from medmamba_monai.ops.selective_scan import cpu

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py as a module, without running setup."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **options: None)
    specification = importlib.util.spec_from_file_location("medmamba_setup", ROOT / "setup.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "no_compiler", lambda: None)
    return module


class Compiler:
    """Writes down what it is asked to do."""

    def __init__(self, kind: str, lacks: tuple[str, ...] = ()) -> None:
        self.compiler_type, self.lacks = kind, lacks
        self.compiled: dict[str, tuple[list[str], list[str]]] = {}
        self.linked: tuple[list[str], str, list[str]] | None = None

    def compile(self, sources: list[str], output_dir: str, macros: Any, extra_postargs: list[str]) -> list[str]:
        name = Path(sources[0]).name
        assert (ROOT / sources[0]).exists()
        if any(flag in self.lacks for flag in extra_postargs):
            raise CompileError("unrecognized command-line option")
        self.compiled[name] = (extra_postargs, [macro for macro, _ in macros])
        return [f"{name}.o"]

    def link_shared_object(self, objects: list[str], target: str, extra_postargs: list[str]) -> None:
        self.linked = (objects, target, extra_postargs)


def build(script: ModuleType, compiler: Compiler, tmp_path: Path) -> Compiler:
    distribution = setuptools.Distribution(
        {"name": "it", "ext_modules": [script.Extension(script.LIBRARY, ["scan.c"])]}
    )
    command = script.BuildLibrary(distribution)
    command.build_lib, command.build_temp = str(tmp_path / "lib"), str(tmp_path / "temp")
    command.finalize_options()
    command.extensions[0]._full_name = script.LIBRARY
    command.compiler = compiler
    command.build_extension(command.extensions[0])
    return compiler


def machine(monkeypatch: pytest.MonkeyPatch, script: ModuleType, name: str, windows: bool = False) -> None:
    monkeypatch.setattr(script, "platform", SimpleNamespace(machine=lambda: name))
    monkeypatch.setattr(script, "WINDOWS", windows)
    monkeypatch.delenv("ARCHFLAGS", raising=False)


def test_msvc_gets_its_own_flags(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No flag of GCC's, the portable kernel alone, no thread library, a .dll that the backend looks for."""
    machine(monkeypatch, script, "AMD64", windows=True)
    compiler = build(script, Compiler("msvc"), tmp_path)
    assert {flag for flags, _ in compiler.compiled.values() for flag in flags} == {"/O2", "/std:c11"}
    assert {"kernel_portable.c", "scan.c"} <= set(compiler.compiled)
    assert not {"kernel_avx2.c", "kernel_avx512.c"} & set(compiler.compiled)
    assert compiler.compiled["scan.c"][1] == []
    assert compiler.linked is not None
    objects, target, flags = compiler.linked
    assert len(objects) == len(compiler.compiled) and flags == []
    assert Path(target).name == "_scan_cpu.dll"


def test_clang_on_apple_silicon(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No x86 code, and no OpenMP: Apple's clang has none, and a second runtime in a process is a danger everywhere."""
    machine(monkeypatch, script, "arm64")
    compiler = build(script, Compiler("unix"), tmp_path)
    flags = {flag for given, _ in compiler.compiled.values() for flag in given}
    assert not {flag for flag in flags if flag.startswith(("-mavx", "-mfma", "-march")) or "openmp" in flag}
    assert "-ffast-math" not in flags and "-fno-fast-math" in flags
    assert compiler.linked is not None and compiler.linked[2] == ["-pthread"]
    assert Path(compiler.linked[1]).name == "_scan_cpu.so"


def test_gcc_on_x86_makes_every_variant(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, script, "x86_64")
    compiler = build(script, Compiler("unix"), tmp_path)
    assert "-mavx2" in compiler.compiled["kernel_avx2.c"][0]
    assert "-mavx512f" in compiler.compiled["kernel_avx512.c"][0]
    assert "-mavx2" not in compiler.compiled["kernel_portable.c"][0]  # it must run on any x86-64
    assert compiler.compiled["scan.c"][1] == ["SCAN_HAVE_AVX2", "SCAN_HAVE_AVX512"]
    assert "openmp" not in str(compiler.compiled) + str(compiler.linked)


def test_an_old_compiler_goes_without_avx512(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, script, "x86_64")
    compiler = build(script, Compiler("unix", lacks=("-mavx512f",)), tmp_path)
    assert compiler.compiled["scan.c"][1] == ["SCAN_HAVE_AVX2"]
    assert "kernel_avx512.c" not in compiler.compiled


def test_a_universal_build_takes_no_x86_variant(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, script, "x86_64")
    monkeypatch.setenv("ARCHFLAGS", "-arch x86_64 -arch arm64")
    assert set(build(script, Compiler("unix"), tmp_path).compiled) & {"kernel_avx2.c", "kernel_avx512.c"} == set()


def test_wheels_are_for_a_platform_and_every_python(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.bdist_wheel, "get_tag", lambda self: ("cp312", "cp312", "win_amd64"))
    assert script.Wheel.get_tag(object.__new__(script.Wheel)) == ("py3", "none", "win_amd64")


@pytest.mark.parametrize("name", ["_scan_cpu.so", "_scan_cpu.dll", "_scan_cpu.dylib"])
def test_the_backend_finds_the_library_by_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(cpu, "__file__", str(tmp_path / "cpu.py"))
    reason = cpu._open.__wrapped__()
    assert isinstance(reason, str) and reason.startswith(f"{name} cannot be loaded")
