"""Files that are either the old one or the new one, never half of it. Used by every handler that writes.

A payload goes to a temporary name in the same folder, is flushed to the disk and then takes its final name;
at no moment is the old file gone before the new one is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from medmamba_monai.errors import CheckpointError

__all__ = [
    "StagedFile",
    "remove_orphans",
    "require_writable",
    "sha256_of",
    "stage",
    "write_atomic",
    "write_json",
]

TEMPORARY_SUFFIX = ".medmamba-tmp"
READABLE_BY_ALL = 0o644


@dataclass(frozen=True)
class StagedFile:
    """A complete payload on the disk that has not yet taken its final name.

    Attributes:
        temporary: where the bytes are now.
        final: where ``commit`` puts them.
        sha256: hexadecimal digest of the bytes.
        size: number of bytes.
    """

    temporary: Path
    final: Path
    sha256: str
    size: int

    def commit(self) -> None:
        """Take the final name, replacing what was there, and make the change survive a power cut."""
        self.temporary.replace(self.final)
        _sync_folder(self.final.parent)

    def discard(self) -> None:
        """Remove the payload."""
        self.temporary.unlink(missing_ok=True)


def stage(path: Path, write: Callable[[BinaryIO], object]) -> StagedFile:
    """Write a payload beside its final place and flush it to the disk.

    Args:
        path: the final place; its folder must exist.
        write: called with the open binary stream.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; what was at ``path`` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(READABLE_BY_ALL)
        return StagedFile(temporary, path, sha256_of(temporary), temporary.stat().st_size)
    except BaseException as error:
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        if _is_storage_error(error):
            raise _storage_error(path, written, error) from error
        raise


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> str:
    """Replace ``path`` by what ``write`` puts into its stream, all or nothing.

    Returns:
        The sha256 digest of the new file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     digest = write_atomic(Path(folder, "a.txt"), lambda stream: stream.write(b"x"))
        ...     Path(folder, "a.txt").read_text(), digest[:4]
        ('x', '2d71')
    """
    staged = stage(path, write)
    staged.commit()
    return staged.sha256


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented; NaN and Infinity are refused because JSON does not know them."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, lambda stream: stream.write(text.encode("utf-8")))


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remove_orphans(folder: Path) -> list[str]:
    """Delete temporary files that a killed process left; returns their names."""
    orphans = sorted(folder.glob(f".*{TEMPORARY_SUFFIX}"))
    for orphan in orphans:
        orphan.unlink(missing_ok=True)
    return [orphan.name for orphan in orphans]


def require_writable(folder: Path) -> None:
    """Create ``folder`` and prove that a file can be written there, before hours of training depend on it.

    Raises:
        CheckpointError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}{TEMPORARY_SUFFIX}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise CheckpointError(
            f"the folder cannot be written: {error.strerror or error}",
            where=str(folder),
            remedy="choose another folder (ckpt_dir, output_dir) or change its permissions",
        ) from error


def _is_storage_error(error: BaseException) -> bool:
    """Whether the operating system refused; torch.save hides that behind an error of its own about positions."""
    if isinstance(error, OSError):
        return True
    return isinstance(error, RuntimeError) and isinstance(error.__context__, OSError)


def _storage_error(path: Path, written: int, error: BaseException) -> CheckpointError:
    try:
        free = f"{shutil.disk_usage(path.parent).free} bytes are free"
    except OSError:
        free = "the folder is gone"
    return CheckpointError(
        f"writing failed after {written} bytes ({error}); {free}",
        where=str(path),
        remedy="free some space or choose another folder; the file that was there before is untouched",
    )


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and the rename is journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
