"""Builds the C library of the CPU scan; all metadata is in setup.cfg.

The library (``ops/selective_scan/_scan_cpu.so``, ``.dll`` on Windows) is loaded with ctypes: it uses no Python and no
PyTorch headers, so that one wheel, tagged py3-none-<platform>, serves every version of both. Without a working C
compiler, or with MEDMAMBA_NO_C set, the package installs without it (py3-none-any) and scans on the portable path.

In a source tree: ``python setup.py build_ext --inplace``.
"""

from __future__ import annotations

import os
import platform
import tempfile
from functools import cache
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import BaseError, CCompilerError, CompileError

SOURCES = "medmamba_monai/ops/selective_scan/csrc"
LIBRARY = "medmamba_monai.ops.selective_scan._scan_cpu"
# True rounding and no errno, but free contraction to fused multiply-adds; -ffast-math would break the exponential.
GNU_FLAGS = ["-std=gnu11", "-O3", "-g0", "-fno-fast-math", "-ffp-contract=fast", "-fno-math-errno"]
GNU_FLAGS += ["-fno-trapping-math", "-fvisibility=hidden", "-Wno-psabi"]
# Some Pythons hand on the -fwrapv they were built with, which takes 5 % of the forward scan.
GNU_FLAGS += ["-fno-wrapv"]
WINDOWS = os.name == "nt"
VARIANTS = {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f", "-mfma"]}


def is_x86() -> bool:
    """Whether code for x86-64 alone is made; a universal macOS build takes the portable kernel for both halves."""
    return platform.machine().lower() in ("x86_64", "amd64") and "arm64" not in os.environ.get("ARCHFLAGS", "")


class Probe(build_ext):
    """Compiles and links a file of one function."""

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Return nothing: there is no PyInit function."""
        return []


@cache
def no_compiler() -> str | None:
    """Why C cannot be compiled here; None when it can."""
    if os.environ.get("MEDMAMBA_NO_C"):
        return "MEDMAMBA_NO_C is set"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.c"
        source.write_text("#include <stdint.h>\n#include <stdlib.h>\nint64_t probe(void) { return 1; }\n")
        command = Probe(Distribution({"name": "probe", "ext_modules": [Extension("probe", [str(source)])]}))
        command.build_lib = command.build_temp = folder
        try:
            command.ensure_finalized()
            command.run()
        except (BaseError, CCompilerError, OSError) as error:
            return f"no working C compiler ({error})"
    return None


class ScanDistribution(Distribution):
    """A distribution that has its C library only where a compiler works."""

    def has_ext_modules(self) -> bool:
        """Whether wheels are platform wheels."""
        return bool(super().has_ext_modules()) and no_compiler() is None


class BuildPackage(build_py):
    """Says, once, that the C library is missing."""

    def run(self) -> None:
        """Build the Python part."""
        if not self.distribution.has_ext_modules():
            self.warn(
                f"{no_compiler()}: medmamba_monai is built without its C kernel and will scan several times slower "
                "on CPUs. Remedy: install a C compiler (gcc, clang or MSVC) and reinstall"
            )
        super().run()


class BuildLibrary(build_ext):
    """A plain shared library: no Python symbols, no ABI tag, own flags for each instruction set."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the path without Python's ABI tag."""
        return os.path.join(*fullname.split(".")) + (".dll" if WINDOWS else ".so")  # noqa: PTH118

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Return nothing: there is no PyInit function."""
        return []

    def run(self) -> None:
        """Build the library unless there is no compiler (build_py has said so)."""
        if no_compiler() is None:
            super().run()

    def build_extension(self, ext: Extension) -> None:
        """Compile each source with its flags and link them."""
        gnu = self.compiler.compiler_type != "msvc"
        common = GNU_FLAGS if gnu else ["/O2", "/std:c11"]
        variants, objects = [], []
        for name, flags in VARIANTS.items() if gnu and is_x86() else ():
            try:
                objects += self._compile(f"kernel_{name}.c", [*common, *flags])
                variants.append((f"SCAN_HAVE_{name.upper()}", None))
            except CompileError:
                self.warn(f"this compiler cannot make {name} code; the library goes without it")
        objects += self._compile("kernel_portable.c", common)
        objects += self._compile("scan.c", common, variants)
        objects += self._compile("network.c", common, variants)
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        threads = [] if WINDOWS else ["-pthread"]
        self.compiler.link_shared_object(objects, str(target), extra_postargs=threads)

    def _compile(self, source: str, flags: list[str], macros: list[tuple[str, str | None]] | None = None) -> list[str]:
        return self.compiler.compile(
            [f"{SOURCES}/{source}"], output_dir=self.build_temp, macros=macros or [], extra_postargs=flags
        )


class Wheel(bdist_wheel):
    """Tags the wheel for every Python 3, and for one platform where it holds the library."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the interpreter, ABI and platform tags."""
        _, _, where = super().get_tag()
        return "py3", "none", where


files = sorted(path.as_posix() for path in Path(SOURCES).glob("*"))
setup(
    distclass=ScanDistribution,
    ext_modules=[
        Extension(LIBRARY, [f for f in files if f.endswith(".c")], depends=[f for f in files if f.endswith(".h")])
    ],
    cmdclass={"bdist_wheel": Wheel, "build_ext": BuildLibrary, "build_py": BuildPackage},
)
