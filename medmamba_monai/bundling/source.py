"""Which bundle is meant by a name, and which of its files belong to a release. Standard library only."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from medmamba_monai.bundling.build import find_root
from medmamba_monai.errors import ConfigError

__all__ = ["METADATA", "all_bundles", "copy_release", "find_bundle", "left_out", "release_files", "sha256_of"]

METADATA = "configs/metadata.json"

RELEASED = {
    "LICENSE": ("",),
    "configs": (".json", ".yaml", ".yml", ".conf"),
    "docs": (".md", ".txt", ".png", ".svg", ".jpg"),
    "scripts": (".py",),
    "medmamba_monai": (".py",),
}
"""What a release holds, by first part of the path and suffix. Nothing else is ever packed or uploaded: a bundle's
folder may hold patients' images, data lists and the outputs of runs under any name."""


def find_bundle(name: str, root: Path | None = None) -> Path:
    """Return the folder of a bundle.

    Args:
        name: of a bundle in ``root``/bundles, or a path to a bundle's folder anywhere.
        root: the repository; None: the one that the working directory lies in.

    Raises:
        ConfigError: there is no such bundle.
    """
    if (Path(name) / METADATA).is_file():
        return Path(name).resolve()
    bundles = find_root((root or Path.cwd()).resolve()) / "bundles"
    if "/" not in name and (bundles / name / METADATA).is_file():
        return bundles / name
    known = ", ".join(path.name for path in all_bundles(root))
    raise ConfigError(
        f"there is no bundle {name!r}", where=str(bundles), remedy=f"use one of {known}, or the path of a bundle"
    )


def all_bundles(root: Path | None = None) -> list[Path]:
    """Return the folders of all bundles of a repository, sorted.

    Raises:
        ConfigError: ``root`` is no repository, or has no bundles.
    """
    bundles = find_root((root or Path.cwd()).resolve()) / "bundles"
    found = sorted(path.parents[1] for path in bundles.glob(f"*/{METADATA}"))
    if not found:
        raise ConfigError("no bundle found", where=str(bundles), remedy="run `python -m medmamba_monai bundle build`")
    return found


def release_files(folder: Path) -> list[str]:
    """List what of a bundle's folder belongs to a release, weights aside.

    Returns:
        Paths relative to ``folder`` with forward slashes, sorted.
    """
    return sorted(path for path in _paths(folder) if _is_released(path))


def left_out(folder: Path, taken: Sequence[str]) -> list[str]:
    """List the first parts of the paths in ``folder`` that hold files beside those ``taken``."""
    return sorted({path.split("/")[0] for path in _paths(folder) if path not in taken})


def copy_release(folder: Path, target: Path, more: Sequence[str] = ()) -> None:
    """Copy the release's files, and those ``more`` paths of the bundle that exist, into an empty ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    for path in [*release_files(folder), *more]:
        if (folder / path).is_file():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, target / path)


def sha256_of(file: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _paths(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            yield file.relative_to(folder).as_posix()


def _is_released(path: str) -> bool:
    parts = path.split("/")
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    suffixes = RELEASED.get(parts[0], ())
    whole = (len(parts) == 1) == (parts[0] == "LICENSE")
    return whole and not hidden and Path(path).suffix.lower() in suffixes
