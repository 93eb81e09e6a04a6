"""Reading a torch.export archive (.pt2) without unpickling. Imports torch and errors only.

``torch.export.load`` unpickles whatever the archive declares as pickled, and loads compiled code where there is some.
An archive of a network needs neither, so one that has either is refused before torch sees it.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch.export import ExportedProgram

from ..errors import CheckpointError

__all__ = ["load"]

_PLAIN = re.compile(
    r"models/model\.json|data/weights/weight_\d+|data/constants/tensor_\d+|data/sample_inputs/model\.pt"
    r"|data/(weights|constants)/model_(weights|constants)_config\.json"
    r"|extra/.*|archive_format|archive_version|version|byteorder|\.data/(version|serialization_id)"
)
"""The entries of an archive that holds one program, tensors as raw bytes, and texts."""


def load(path: Path) -> ExportedProgram:
    """Load an exported program.

    Raises:
        CheckpointError: when the file is damaged, or holds more than a program and its tensors.
    """
    try:
        _refuse_code(path)
        return torch.export.load(path)
    except (OSError, RuntimeError, ValueError, KeyError, AssertionError, zipfile.BadZipFile) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"no torch.export file that can be read ({reason})", where=str(path)) from error


def _refuse_code(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            name = entry.split("/", 1)[-1]
            if not _PLAIN.fullmatch(name):
                raise _refusal(path, name)
            if name.endswith("_config.json") and b"use_pickle" in archive.read(entry):
                config = json.loads(archive.read(entry)).get("config", {})
                if any(payload.get("use_pickle") for payload in config.values()):
                    raise _refusal(path, name)
            if name.endswith("sample_inputs/model.pt"):
                try:
                    torch.load(io.BytesIO(archive.read(entry)), weights_only=True)
                except pickle.UnpicklingError as error:
                    raise _refusal(path, name) from error


def _refusal(path: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"its entry {name} is more than a program and its tensors; reading it could run code of its author",
        where=str(path),
        remedy="export the trained weights with `python -m medmamba_monai export`",
    )
