"""Render every bundle from configs/ into bundles/, and tell whether what lies there is up to date.

Copies kept by hand drift apart, and merging when a bundle runs breaks the tools that open one config
file; so the bundles are generated, checked in, and compared with their source. Standard library only.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from medmamba_monai.bundling.layout import json_text
from medmamba_monai.bundling.merge import read_json
from medmamba_monai.bundling.presets import load_presets
from medmamba_monai.bundling.render import load_base, render_bundle
from medmamba_monai.errors import ConfigError

__all__ = ["LOCK", "build", "differences", "find_root", "render_all"]

LOCK = "configs/lock.json"
RUN_OUTPUTS = ("models", "eval")
"""Folders of a bundle that runs write to: neither generated nor compared."""


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above ``start`` that holds configs/base.

    Raises:
        ConfigError: there is none.
    """
    for folder in (start, *start.parents):
        if (folder / "configs" / "base").is_dir():
            return folder
    raise ConfigError(
        "neither this folder nor one above holds configs/base",
        where=str(start),
        remedy="run in a clone of the repository, or give --root",
    )


def render_all(root: Path) -> dict[str, bytes]:
    """Render all bundles and the lock file in memory.

    Args:
        root: the repository's folder.

    Returns:
        File contents by path relative to ``root``, sorted; the lock file last.

    Raises:
        ConfigError: an overlay does not fit the base, or there is no overlay.
    """
    base = load_base(root / "configs" / "base")
    overlays = sorted((root / "configs" / "modalities").glob("*.json"))
    if not overlays:
        raise ConfigError("no overlay found", where=str(root / "configs" / "modalities"), remedy="add <name>.json")
    presets = load_presets(root / "configs" / "datasets", [overlay.stem for overlay in overlays])
    files: dict[str, bytes] = {}
    for overlay in overlays:
        name, texts = render_bundle(base, overlay, presets)
        files.update({f"bundles/{name}/{path}": text.encode() for path, text in texts.items()})
    files = dict(sorted(files.items()))
    lock = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    return {**files, LOCK: json_text(lock).encode()}


def differences(root: Path) -> list[str]:
    """Compare what lies on disk with what the configs say.

    Args:
        root: the repository's folder.

    Returns:
        One line a file that is missing, edited or left over; empty when all is in step.
    """
    wanted = render_all(root)
    found = []
    for path, content in wanted.items():
        file = root / path
        if not file.is_file():
            found.append(f"{path}: missing")
        elif file.read_bytes() != content:
            found.append(f"{path}: differs from configs/")
    return found + [f"{path}: not generated from configs/" for path in _left_over(root, wanted)]


def _left_over(root: Path, wanted: dict[str, bytes]) -> list[str]:
    """List files inside bundles/ that are neither generated nor the outputs of a run."""
    found = []
    for file in sorted((root / "bundles").rglob("*")):
        path = file.relative_to(root)
        if file.is_file() and path.as_posix() not in wanted and not set(path.parts[2:-1]) & set(RUN_OUTPUTS):
            found.append(path.as_posix())
    return found


def build(root: Path) -> list[str]:
    """Write every generated file that is not yet as it should be, and remove those an earlier build left.

    Only files that the old lock file names are removed: nothing a person put there is lost.

    Args:
        root: the repository's folder.

    Returns:
        One line a file written or removed.
    """
    wanted = render_all(root)
    lock = root / LOCK
    former = read_json(lock) if lock.is_file() else {}
    changes = []
    for path, content in wanted.items():
        file = root / path
        if not file.is_file() or file.read_bytes() != content:
            _write(file, content)
            changes.append(f"wrote {path}")
    for path in sorted(set(former) - set(wanted)):
        if path.startswith("bundles/") and ".." not in Path(path).parts and (root / path).is_file():
            (root / path).unlink()
            changes.append(f"removed {path}")
    return changes


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_bytes(content)
    temporary.replace(file)
