"""A folder of weights with their digests: what is written there can be proved unharmed when it is read.

``checkpoints.json`` lists, for every file, the sha256 digests it may have: the present one and the one
before. The list is written after the new payload is complete under a temporary name and before it takes its
final name, so file and list agree whenever the process is killed.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medmamba_monai.errors import CheckpointError
from medmamba_monai.handlers.files import TEMPORARY_SUFFIX, sha256_of, stage, write_json

__all__ = ["CheckpointFolder", "first_nonfinite", "plain", "previous_name", "read_payload"]

INDEX_NAME = "checkpoints.json"
INDEX_FORMAT = 1

logger = logging.getLogger(__name__)


class CheckpointFolder:
    """Saves and loads named payloads of tensors, numbers and strings.

    Args:
        path: the folder; ``save`` expects it to exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = CheckpointFolder(Path(name))
        ...     folder.save("model.pt", {"weight": torch.ones(2)}, {"epoch": 1})
        ...     folder.load("model.pt")
        {'weight': tensor([1., 1.])}
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(
        self, name: str, payload: Mapping[str, Any], facts: Mapping[str, Any], keep_previous: bool = False
    ) -> None:
        """Replace the file ``name``; the old one goes last.

        Args:
            name: file name in this folder.
            payload: what ``torch.save`` writes; must be loadable weights-only.
            facts: numbers and strings for the list (epoch, metric …).
            keep_previous: keep the replaced file as ``<stem>_previous<suffix>``.

        Raises:
            CheckpointError: the disk is full, the folder is not writable, or the payload could not be read back.
        """
        final = self.path / name
        index = self.index()
        contents = plain(payload, name)
        staged = stage(final, lambda stream: torch.save(contents, stream))
        try:
            old = self._digest_on_disk(index, name)
            entry = {"sha256": staged.sha256, "bytes": staged.size, "also": [old] if old else [], **facts}
            if keep_previous and old:
                before = self._digest_on_disk(index, previous_name(name))
                index[previous_name(name)] = {"sha256": old, "also": [before] if before else []}
            index[name] = entry
            write_json(self.path / INDEX_NAME, {"format": INDEX_FORMAT, "files": index})
            if keep_previous and old:
                _duplicate(final, self.path / previous_name(name))
            staged.commit()
        finally:
            staged.discard()

    def load(self, name: str) -> dict[str, Any]:
        """Read a file after proving its digest.

        Raises:
            CheckpointError: it is missing, differs from its digest or cannot be read.
        """
        self.verify(name)
        return read_payload(self.path / name)

    def verify(self, name: str) -> None:
        """Compare a file with the list; a file the list does not know is accepted.

        Raises:
            CheckpointError: the file is missing or differs from every digest it may have.
        """
        path = self.path / name
        if not path.is_file():
            raise CheckpointError("the file is missing", where=str(path), remedy="train first, or correct the path")
        entry = self.index().get(name)
        if entry is None:
            logger.info("%s is not listed in %s: its digest is not checked", path, INDEX_NAME)
        elif sha256_of(path) not in [entry["sha256"], *entry.get("also", [])]:
            raise CheckpointError(
                f"the file differs from its digest in {INDEX_NAME}: it was damaged or replaced",
                where=str(path),
                remedy=f"restore it from a copy; if it was replaced on purpose, delete {INDEX_NAME}",
            )

    def index(self) -> dict[str, Any]:
        """The listed files and their facts; empty where there is no list yet.

        Raises:
            CheckpointError: the list itself is unreadable.
        """
        path = self.path / INDEX_NAME
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            files: dict[str, Any] = content["files"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"the list of digests is unreadable ({error})",
                where=str(path),
                remedy="delete it; the files beside it are then read without proof",
            ) from error
        return files

    def _digest_on_disk(self, index: Mapping[str, Any], name: str) -> str | None:
        """Digest of the file as it is now; read only where the list leaves a doubt."""
        path = self.path / name
        if not path.is_file():
            return None
        entry = index.get(name)
        if entry is not None and not entry.get("also"):
            return str(entry["sha256"])
        return sha256_of(path)


def read_payload(path: Path) -> dict[str, Any]:
    """Read a dictionary that ``torch.save`` wrote, or a safetensors file, without running code in it.

    Raises:
        CheckpointError: damaged, or something other than tensors, numbers and strings.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return dict(load_file(path, device="cpu"))
            except SafetensorError as error:
                raise _unreadable(path, error) from error
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(payload, Mapping):
        raise _unreadable(path, TypeError(f"it holds a {type(payload).__name__}, not a dictionary"))
    return dict(payload)


def first_nonfinite(payload: Any, name: str = "") -> str | None:
    """Name of the first floating tensor that holds NaN or Inf, looking into dictionaries and lists.

    Example:
        >>> first_nonfinite({"a": torch.ones(1), "b": {"c": torch.tensor([float("inf")])}})
        'b.c'
    """
    if isinstance(payload, torch.Tensor):
        bad = payload.is_floating_point() and not bool(torch.isfinite(payload).all())
        return name if bad else None
    items: Any = ()
    if isinstance(payload, Mapping):
        items = payload.items()
    elif isinstance(payload, list | tuple):
        items = enumerate(payload)
    for key, value in items:
        if found := first_nonfinite(value, f"{name}.{key}" if name else str(key)):
            return found
    return None


def plain(payload: Any, name: str) -> Any:
    """The same content in types that weights-only loading accepts: NumPy's numbers become Python's.

    Args:
        payload: nested dictionaries, lists, tuples, tensors, numbers and strings.
        name: where it stands, for the message.

    Raises:
        CheckpointError: anything else, which could be written but never be read again.

    Example:
        >>> import numpy as np
        >>> plain({"lr": np.float64(0.5), "betas": (0.9, np.float32(0.5))}, "optimizer")
        {'lr': 0.5, 'betas': (0.9, 0.5)}
    """
    if isinstance(payload, Mapping):
        return {key: plain(value, f"{name}.{key}") for key, value in payload.items()}
    if isinstance(payload, list | tuple):
        values = [plain(value, f"{name}.{index}") for index, value in enumerate(payload)]
        return tuple(values) if isinstance(payload, tuple) else values
    if isinstance(payload, np.generic):
        return payload.item()
    if payload is None or type(payload) in (torch.Tensor, torch.nn.Parameter, bool, int, float, str):
        return payload
    if isinstance(payload, torch.Tensor):  # a subclass, such as a tensor with metadata
        return payload.detach().as_subclass(torch.Tensor)
    raise CheckpointError(
        f"a {type(payload).__name__} cannot be stored: only tensors, numbers and strings can be read back safely",
        where=name,
        remedy="have the optimiser, the schedule or the handler give plain values in its state_dict",
    )


def previous_name(name: str) -> str:
    """Name under which the replaced file is kept.

    Example:
        >>> previous_name("checkpoint.pt")
        'checkpoint_previous.pt'
    """
    path = Path(name)
    return f"{path.stem}_previous{path.suffix}"


def _duplicate(source: Path, target: Path) -> None:
    """Give a file a second name, atomically; where the file system knows no links, a second copy."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def _unreadable(path: Path, error: BaseException) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(
        f"the file cannot be read: {reason}",
        where=str(path),
        remedy="restore it from a copy, or train again; only tensors, numbers and strings are accepted",
    )
