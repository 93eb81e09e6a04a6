"""The MedMNIST source: official splits and class names of an npz file, and its checksum on request.

Imports npz, entries.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np

from medmamba_monai.data.entries import Entry, parse_split
from medmamba_monai.data.medmnist_table import MEDMNIST_CLASSES, MEDMNIST_MD5
from medmamba_monai.data.npz import load_array, npz_headers
from medmamba_monai.errors import DataError

__all__ = ["known_classes", "md5_of", "medmnist_entries", "verify_md5"]


def known_classes(path: Path) -> tuple[str, ...] | None:
    """Class names in label order of a MedMNIST file, known by its name, or None.

    Example:
        >>> known_classes(Path("pneumoniamnist_64.npz"))
        ('normal', 'pneumonia')
    """
    match = re.match(r"([a-z]+mnist(?:3d)?)(?![a-z0-9])", path.stem.lower())
    return MEDMNIST_CLASSES.get(match[1]) if match else None


def md5_of(path: Path) -> str:
    """MD5 sum of a file, as hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def verify_md5(path: Path) -> str:
    """MD5 sum of the file, after comparing it with the official one.

    Raises:
        DataError: it differs, or the file is none of MedMNIST's.
    """
    digest, official = md5_of(path), MEDMNIST_MD5.get(path.name.lower())
    if official is None:
        raise DataError(
            f"no official MD5 sum is known for this name (this file has {digest})",
            where=str(path),
            remedy="if you trust the file, leave the check out: verify_md5=False",
        )
    if digest != official:
        raise DataError(
            f"MD5 sum is {digest}, the official file has {official}: not the same file",
            where=str(path),
            remedy="fetch it again, or, if you trust this file, accept it with verify_md5=False",
        )
    return official


def medmnist_entries(path: Path, *, check_md5: bool = False) -> tuple[list[Entry], list[str]]:
    """Entries and class names of a MedMNIST archive.

    Args:
        path: the npz file.
        check_md5: compare its MD5 sum with the official one first.

    Returns:
        Entries with the official split, in the order train, val, test; class names in label order, from the
        MedMNIST table where the file's name is known, else "class_0", "class_1", ….

    Raises:
        DataError: wrong sum, unreadable, missing arrays, labels that are no single class numbers, or more
            labels than the table has names.
    """
    if check_md5:
        verify_md5(path)
    headers = npz_headers(path)
    labels = {}
    for part in ("train", "val", "test"):
        if f"{part}_images" not in headers:
            continue
        if f"{part}_labels" not in headers:
            raise DataError(
                f"has {part}_images and no {part}_labels",
                where=str(path),
                remedy="give the labels as (N, 1) integers",
            )
        array = load_array(path, f"{part}_labels")
        count = headers[f"{part}_images"][0][0]
        if array.size != count or array.dtype.kind not in "iub" or (array.size and array.min() < 0):
            raise DataError(
                f"{part}_labels is {array.dtype} {array.shape} for {count} images",
                where=str(path),
                remedy="one class number for each image is needed; multi-label sets are not read from npz",
            )
        labels[part] = array.reshape(-1).astype(np.int64).tolist()
    if "train" not in labels:
        raise DataError(
            f"holds no train_images (arrays: {', '.join(headers)})",
            where=str(path),
            remedy="the arrays must be named as in MedMNIST: train_images, train_labels, …",
        )
    count = max(max(values, default=0) for values in labels.values()) + 1
    names = list(known_classes(path) or (f"class_{index}" for index in range(count)))
    if count > len(names):
        raise DataError(
            f"has label {count - 1}, but {path.stem} has {len(names)} classes",
            where=str(path),
            remedy="rename the file, so that it is not taken for the MedMNIST set of this name",
        )
    entries = [
        Entry(f"{path.name}#{part}/{index}", names[label], f"{path.name}, {part}_labels[{index}]", None, split)
        for part, values in labels.items()
        for split in [parse_split(part, path.name)]
        for index, label in enumerate(values)
    ]
    return entries, names
