"""A folder that one command at a time works in, also when the one before was killed. Standard library and errors."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medmamba_monai.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["hold_folder"]

NAME = ".lock"
PATIENCE = 60.0  # seconds in which a run whose command was killed has saved its state


@contextmanager
def hold_folder(folder: Path, patience: float = PATIENCE) -> Iterator[list[int]]:
    """Hold a folder; the hold ends with this process and with all that inherited it.

    Without POSIX locks (Windows) nothing is held.

    Args:
        folder: created if needed.
        patience: seconds to wait for a run to end that a killed command left.

    Yields:
        File descriptors for the processes that shall hold the folder, too; none on Windows, which cannot hand them on.

    Raises:
        ConfigError: another command is at work there, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", where=str(folder), remedy="choose another --output_dir"
        ) from error
    try:
        if not _locked(descriptor, time.monotonic() + patience):
            raise ConfigError(
                "another command, or a run that it started, is at work in this folder",
                where=str(folder),
                remedy="wait for its end, or choose another --output_dir",
            )
        yield [] if fcntl is None else [descriptor]
    finally:
        os.close(descriptor)


def _locked(descriptor: int, deadline: float) -> bool:
    if fcntl is None:
        return True
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                return True  # a file system without locks
            raise
        else:
            return True
