"""MedMNIST npz archives.

Their members' names, headers, labels and pixels, without trusting what the file claims.

Imports errors only. An image in an archive is written "name.npz#train/17"; "train" stands for the array
"train_images", any other array is named as it is.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.errors import DataError

__all__ = ["load_array", "member_names", "npz_headers", "read_member", "split_member"]

_MEMBER = re.compile(r"^(?P<file>.+\.npz)#(?P<key>[^#/]+)/(?P<index>\d+)$", re.IGNORECASE | re.DOTALL)
_MAX_ARRAY_BYTES = 16 * 2**30
_REMEDY = "fetch the archive again; it must be a zip of plain numeric arrays such as MedMNIST's"
_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, KeyError, NotImplementedError)


def split_member(path: str) -> tuple[str, str, int] | None:
    """("x.npz", "train", 17) of "x.npz#train/17", or None where the path names no member.

    Example:
        >>> split_member("a/x.npz#train/17"), split_member("a#b/scan.png")
        (('a/x.npz', 'train', 17), None)
    """
    match = _MEMBER.match(path)
    return (match["file"], match["key"], int(match["index"])) if match else None


def npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every array in the archive, read from the headers alone.

    Raises:
        DataError: no archive, damaged, an array of objects, or a header that claims more than the file holds.
    """
    headers = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    continue
                with archive.open(info) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = np.lib.format.read_array_header_1_0 if version[0] == 1 else None
                    read = read or np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(stream)
                size = int(np.prod(shape, dtype=object)) * dtype.itemsize
                if dtype.hasobject or size > info.file_size or size > _MAX_ARRAY_BYTES:
                    raise DataError(
                        f"array {info.filename!r} claims {dtype} {shape} in {info.file_size} bytes",
                        where=str(path),
                        remedy=_REMEDY,
                    )
                headers[info.filename[: -len(".npy")]] = (tuple(shape), dtype)
    except _BROKEN as error:
        raise DataError(f"is no readable npz archive: {error}", where=str(path), remedy=_REMEDY) from error
    return headers


def _array_name(path: Path, key: str) -> str:
    headers = npz_headers(path)
    name = f"{key}_images" if f"{key}_images" in headers else key
    if name not in headers:
        raise DataError(
            f"has no array {key!r} (arrays: {', '.join(headers)})",
            where=str(path),
            remedy="write members as name.npz#train/17",
        )
    return name


def load_array(path: Path, name: str) -> NDArray[Any]:
    """One array of the archive.

    Raises:
        DataError: damaged archive or array.
    """
    npz_headers(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: NDArray[Any] = archive[name]
            return array
    except _BROKEN as error:
        raise DataError(f"array {name!r} cannot be read: {error}", where=str(path), remedy=_REMEDY) from error


@lru_cache(maxsize=3)
def _cached_array(path: str, key: str, stamp: tuple[int, int]) -> NDArray[Any]:
    # the arrays are compressed, so reading one image means unpacking all: keep the three parts of one archive
    return load_array(Path(path), _array_name(Path(path), key))


def read_member(path: Path, key: str, index: int) -> NDArray[Any]:
    """Pixels of one image as stored: (H, W), (H, W, C) or (H, W, D). The unpacked array is kept.

    Raises:
        DataError: the archive cannot be read, or has no such array or image.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError("does not exist", where=str(path), remedy="check the path") from error
    array = _cached_array(str(path), key, (stat.st_mtime_ns, stat.st_size))
    if array.ndim < 3 or index >= len(array):
        raise DataError(
            f"array {key!r} of shape {array.shape} has no image {index}",
            where=str(path),
            remedy="count from 0",
        )
    member: NDArray[Any] = array[index]
    return member


def member_names(path: Path) -> list[str]:
    """Every image of the archive as "train/0", "train/1", …, in the order train, val, test.

    Raises:
        DataError: the archive cannot be read or holds no MedMNIST images.
    """
    headers = npz_headers(path)
    names = []
    for part in ("train", "val", "test"):
        shape = headers[f"{part}_images"][0] if f"{part}_images" in headers else (0,)
        names += [f"{part}/{index}" for index in range(shape[0])]
    if not names:
        raise DataError(
            f"holds no MedMNIST images (arrays: {', '.join(headers)})",
            where=str(path),
            remedy="the arrays must be named train_images, val_images and test_images",
        )
    return names
