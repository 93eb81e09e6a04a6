"""Which part of this package a bundle needs, so that it can carry it along. Standard library only.

The part is found by following imports from the names that the bundle's configs mention. It keeps the package's name
and its files byte for byte: the configs stay as they are, and the copy can be proved equal to the release.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import medmamba_monai
from medmamba_monai.errors import ConfigError

__all__ = ["NAME", "differences", "mentioned_names", "needed_modules", "needed_packages", "vendor"]

NAME = "medmamba_monai"
PACKAGE = Path(medmamba_monai.__file__).parent
_MENTION = re.compile(rf"\b{NAME}(?:\.[A-Za-z_]\w*)*")

ON_REQUEST = frozenset({"triton", "medmnist"})
"""Packages that are imported only where a user asks for what they do; everything runs without them."""

STATED_APART = frozenset({"torch", "monai", "numpy"})
"""Packages whose versions have entries of their own in the metadata."""


def mentioned_names(folder: Path) -> list[str]:
    """Return every dotted name of this package in the configs of a bundle, sorted."""
    texts = [file.read_text(encoding="utf-8") for file in sorted((folder / "configs").glob("*.json"))]
    return sorted({name for text in texts for name in _MENTION.findall(text)})


def needed_modules(names: Iterable[str]) -> list[str]:
    """Follow imports from dotted names, wherever in a file they stand.

    Args:
        names: modules, or functions and classes in them.

    Returns:
        Files of the package relative to the folder it lies in, sorted.

    Raises:
        ConfigError: a name leads nowhere.

    Example:
        >>> needed_modules(["medmamba_monai.errors.DataError"])[:2]
        ['medmamba_monai/__init__.py', 'medmamba_monai/errors.py']
    """
    waiting, seen = {_module_of(name) for name in names}, set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        waiting |= {_module_of(name) for name in _imports(module) if _is_ours(name)} - seen
        parents = module.split(".")[:-1]
        waiting |= {".".join(parents[: i + 1]) for i in range(len(parents))} - seen
    return sorted(_file(module).relative_to(PACKAGE.parent).as_posix() for module in seen)


def needed_packages(files: Iterable[str]) -> dict[str, str]:
    """Return the distributions that files of this package import, with the versions that are installed here.

    Args:
        files: from `needed_modules`.

    Raises:
        ConfigError: one of them is not installed, so that no version can be stated.
    """
    tops = {name.split(".")[0] for file in files for name in _imports(_module_at(file)) if not _is_ours(name)}
    tops -= {*sys.stdlib_module_names, *ON_REQUEST, *STATED_APART}
    known = importlib.metadata.packages_distributions()
    if missing := sorted(tops - set(known)):
        raise ConfigError(
            f"{', '.join(missing)} is imported and not installed here", remedy="install it and pack again"
        )
    # several distributions may fill one package, as mlflow's do: then the one of its name
    names = sorted(top if top in known[top] else known[top][0] for top in tops)
    return {name: importlib.metadata.version(name) for name in names}


def vendor(folder: Path) -> list[str]:
    """Copy what a bundle needs of this package into its folder.

    Returns:
        The files, relative to ``folder``.
    """
    files = needed_modules(mentioned_names(folder))
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PACKAGE.parent / file, folder / file)
    return files


def differences(folder: Path) -> list[str]:
    """Compare the copy that a bundle carries with this package.

    Returns:
        One line a file that is missing, differs or is not needed.
    """
    wanted = needed_modules(mentioned_names(folder))
    found = sorted(file.relative_to(folder).as_posix() for file in (folder / NAME).rglob("*.py"))
    lines = [f"{file} is missing" for file in wanted if file not in found]
    for file in found:
        if file not in wanted:
            lines.append(f"{file} is not needed")
        elif (folder / file).read_bytes() != (PACKAGE.parent / file).read_bytes():
            lines.append(f"{file} differs from {NAME} {medmamba_monai.__version__}")
    return lines


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == NAME


def _module_of(name: str) -> str:
    """The module that a dotted name stands for or in."""
    parts = name.split(".")
    while len(parts) > 1 and not _exists(".".join(parts)):
        parts.pop()
    if len(parts) == 1 < name.count(".") and not hasattr(medmamba_monai, name.split(".")[1]):
        raise ConfigError(f"there is no {name} in {NAME} {medmamba_monai.__version__}", remedy="correct the configs")
    return ".".join(parts)


def _file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _exists(module: str) -> bool:
    return _file(module).is_file()


def _module_at(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Full names of what a module imports, at its top or inside functions."""
    file = _file(module)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(_names(ast.parse(file.read_text(encoding="utf-8")), package))


def _names(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and len(node.args) == 2:
            # a name made at run time, relative to a package: any of the package's modules may be meant
            siblings = _file(package).parent.glob("*.py")
            yield from (f"{package}.{file.stem}" for file in siblings if file.stem != "__init__")
