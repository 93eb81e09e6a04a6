"""Fetches a MedMNIST archive on request, at the address that the `medmnist` package names. Imports medmnist."""

from __future__ import annotations

import ast
import http.client
import importlib.util
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmamba_monai.data.medmnist import md5_of
from medmamba_monai.data.medmnist_table import MEDMNIST_MD5
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["SIZES", "archive_name", "fetch_medmnist", "size_for"]

SIZES = (28, 64, 128, 224)
"""Pixels a side of the 2-D archives."""

logger = logging.getLogger(__name__)


def size_for(image_size: Sequence[int]) -> int:
    """The smallest archive that need not be enlarged to ``image_size``; else the largest there is.

    Example:
        >>> size_for([64, 64]), size_for([96]), size_for([384, 384])
        (64, 128, 224)
    """
    return next((size for size in SIZES if size >= max(image_size)), SIZES[-1])


def archive_name(name: str, size: int) -> str:
    """File name of an archive.

    Example:
        >>> archive_name("bloodmnist", 28), archive_name("bloodmnist", 64)
        ('bloodmnist.npz', 'bloodmnist_64.npz')
    """
    return f"{name}.npz" if size == SIZES[0] else f"{name}_{size}.npz"


def fetch_medmnist(name: str, folder: str | os.PathLike[str], size: int, *, progress: bool = True) -> Path:
    """Download one archive into ``folder``, unless it is there.

    The file appears under its name only when it is whole and its MD5 sum is the official one.

    Args:
        name: of the set, such as "bloodmnist".
        folder: where to put it; made if need be.
        size: pixels a side, one of ``SIZES``.
        progress: show a progress bar.

    Returns:
        The archive's path. One that is there already is returned as it is.

    Raises:
        ConfigError: there is no such size.
        DataError: the `medmnist` package is missing or does not know the set, the download failed, or what came
            is not the official file.
    """
    if size not in SIZES:
        raise ConfigError(f"there is no size {size} of {name}", where="download", remedy=f"use one of {SIZES}")
    target = Path(folder).expanduser() / archive_name(name, size)
    if target.exists():
        return target
    address = _address(name, size)
    _download(address, target, progress)
    return target


def _download(address: str, target: Path, progress: bool) -> None:
    from torch.hub import download_url_to_file

    logger.info("fetching %s to %s", address, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as waiting:
            arrived = Path(waiting) / target.name
            download_url_to_file(address, str(arrived), progress=progress)
            digest, official = md5_of(arrived), MEDMNIST_MD5.get(target.name)
            if digest != official:
                raise DataError(
                    f"what came from {address} has the MD5 sum {digest}, the official file {official}",
                    where=str(target),
                    remedy="try again; nothing was kept",
                )
            arrived.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"cannot be fetched from {address}: {error}",
            where=str(target),
            remedy=f"try again, or download it by other means and put it into {target.parent}",
        ) from error


def _address(name: str, size: int) -> str:
    """Where the package says that the archive lies."""
    key = "url" if size == SIZES[0] else f"url_{size}"
    address = _info().get(name, {}).get(key)
    if not isinstance(address, str):
        raise DataError(
            f"the installed medmnist package names no {size}-pixel archive of {name!r}",
            remedy="install the newest: pip install --upgrade medmnist",
        )
    return address


def _info() -> dict[str, Any]:
    """The package's table of data sets, read without importing it: an import makes the folder ~/.medmnist."""
    spec = importlib.util.find_spec("medmnist")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "the medmnist package, which knows the addresses, is not installed",
            where="download",
            remedy="pip install 'medmamba_monai[medmnist]'",
        )
    file = Path(next(iter(spec.submodule_search_locations))) / "info.py"
    try:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INFO":
                table: dict[str, Any] = ast.literal_eval(node.value)
                return table
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"cannot be read: {error}", where=str(file), remedy="pip install medmnist==3.0.2") from error
    raise DataError("has no table INFO", where=str(file), remedy="pip install medmnist==3.0.2")
