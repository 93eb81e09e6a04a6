"""The zip of a release: the same bytes whenever and wherever the same bundle is packed."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from medmamba_monai.bundling.merge import read_json
from medmamba_monai.bundling.release import LOCK, Release, assemble
from medmamba_monai.bundling.source import METADATA, left_out, release_files, sha256_of
from medmamba_monai.errors import ConfigError

__all__ = ["Packed", "pack"]

EPOCH = (1980, 1, 1, 0, 0, 0)
READABLE = 0o100644 << 16


class Packed(NamedTuple):
    """The zip, its SHA-256, what it holds, and what the bundle's folder holds beside."""

    file: Path
    sha256: str
    files: list[str]
    left_out: list[str]


def pack(folder: Path, output: Path, release: Release) -> Packed:
    """Write ``<output>/<name>_v<version>.zip``, whose one folder has the bundle's name, as in the zoo.

    Args:
        folder: the bundle.
        output: made if it does not exist.
        release: what goes in beside the bundle's own files.

    Raises:
        ConfigError: see `assemble`; or the zip cannot be written.
        CheckpointError: see `assemble`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / folder.name
        files = sorted([*assemble(folder, staged, release), LOCK])
        version = read_json(staged / METADATA)["version"]
        target = output / f"{folder.name}_v{version}.zip"
        try:
            output.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part")
            _write(part, staged, files)
            part.replace(target)
        except OSError as error:
            raise ConfigError(f"cannot be written ({error.strerror})", where=str(target)) from error
    return Packed(target, sha256_of(target), files, left_out(folder, release_files(folder)))


def _write(target: Path, staged: Path, files: list[str]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in files:
            entry = zipfile.ZipInfo(f"{staged.name}/{path}", EPOCH)
            entry.external_attr, entry.compress_type = READABLE, zipfile.ZIP_DEFLATED
            entry.create_system = 3  # as on POSIX, wherever it is packed
            archive.writestr(entry, (staged / path).read_bytes(), compresslevel=9)
