"""Which pictures of a data set are copies of one another, in whichever files and splits they stand.

Exact copies have the same bytes (of members of an archive: the same pixels); near ones are the same picture
re-encoded, resized, mirrored or turned, see fingerprints. Pictures of one grey value are copies of nothing, as they
show nothing; pictures with a side below 16 pixels and those that cannot be read are compared by their bytes alone.
Volumes are compared by their middle slices, and as a whole. Imports image, fingerprints and storage.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.data.files import dataset_root
from medmamba_monai.data.fingerprints import THRESHOLD, near_duplicates, pooled, thumbnail, volume_similarity
from medmamba_monai.data.image import read_image
from medmamba_monai.data.npz import split_member
from medmamba_monai.data.storage import sha256_of, write_atomically
from medmamba_monai.errors import DataError

__all__ = ["DuplicateFinder", "Duplicates", "Fingerprint", "Pair", "find_duplicates", "fingerprint", "match"]

CACHE_NAME = "duplicates.json"
_METHOD = f"1, {THRESHOLD}"  # a change of method must not meet results of the old one
_SMALLEST_SIDE = 16
_DIGEST_BYTES = 16
_WORKERS = 8


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a picture to compare it with others.

    Attributes:
        digest: of the file's bytes or the member's pixels; None where the picture shows nothing.
        thumb: see ``fingerprints.thumbnail``; None where it cannot be compared by its looks.
        whole: of a volume, see ``fingerprints.pooled``.
    """

    digest: bytes | None
    thumb: NDArray[np.uint8] | None = None
    whole: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Pair:
    """Two files with one picture: "exact" or "near", and the correlation of their fingerprints."""

    files: tuple[str, str]
    kind: str
    similarity: float


@dataclass
class Duplicates:
    """The copies among a list of files.

    Attributes:
        images: number of files compared.
        exact: files with the same content, two or more each, in the order of the list.
        near: (file, file, correlation) of pictures that look the same; of exact copies the first stands for all.
        unread: files that cannot be read as pictures.
    """

    images: int = 0
    exact: list[list[str]] = field(default_factory=list)
    near: list[tuple[str, str, float]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def pairs(self, split_of: Mapping[str, str]) -> Iterator[Pair]:
        """Every copy with the picture it is one of, so that no pair across two splits is hidden behind another.

        Args:
            split_of: file -> its split.
        """
        firsts: dict[str, dict[str, str]] = {}
        for files in self.exact:
            known = firsts[files[0]] = {}
            for file in files:
                others = [other for split, other in known.items() if split != split_of[file]]
                for other in others or list(known.values()):
                    yield Pair((other, file), "exact", 1.0)
                known.setdefault(split_of[file], file)
        for a, b, similarity in self.near:
            ones, twos = (firsts.get(file, {split_of[file]: file}) for file in (a, b))
            across = [(one, two) for p, one in ones.items() for q, two in twos.items() if p != q]
            for files_ in across or [(a, b)]:
                yield Pair(files_, "near", similarity)

    def clusters(self) -> list[list[str]]:
        """Files that are copies of one another, directly or through others, two or more each."""
        parent: dict[str, str] = {}
        for a, b in self._links():
            parent[_root(parent, b)] = _root(parent, a)
        found: dict[str, list[str]] = defaultdict(list)
        for file in sorted(parent):
            found[_root(parent, file)].append(file)
        return [files for files in found.values() if len(files) > 1]

    def joined(self, files: Sequence[str], groups: Sequence[Hashable]) -> list[Hashable]:
        """Groups united where they hold copies of one another.

        Args:
            files: the images.
            groups: the group of each.

        Example:
            >>> Duplicates(3, exact=[["a", "c"]]).joined(["a", "b", "c"], ["P1", "P2", "P3"])
            ['P1', 'P2', 'P1']
        """
        group_of = dict(zip(files, groups, strict=True))
        parent: dict[Hashable, Hashable] = {}
        for a, b in self._links():
            if a in group_of and b in group_of:
                parent[_root(parent, group_of[b])] = _root(parent, group_of[a])
        return [_root(parent, group) for group in groups]

    def _links(self) -> Iterator[tuple[str, str]]:
        for files in self.exact:
            yield from ((files[0], other) for other in files[1:])
        yield from ((a, b) for a, b, _ in self.near)


DuplicateFinder: TypeAlias = Callable[[Sequence[str]], Duplicates]
_T = TypeVar("_T", bound=Hashable)


def _root(parent: dict[_T, _T], item: _T) -> _T:
    while (above := parent.setdefault(item, item)) != item:
        parent[item] = parent[above]
        item = above
    return item


def fingerprint(path: str, array: NDArray[np.float32]) -> Fingerprint:
    """What is kept of one picture, read from ``path``.

    Args:
        path: the file or member of an archive.
        array: its pixels (C, H, W) or (C, H, W, D) in [0, 1], as ``read_image`` gives them.
    """
    if array.min() == array.max():
        return Fingerprint(None)
    digest = _file_digest(path)
    if digest is None:
        digest = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=_DIGEST_BYTES).digest()
    if min(array.shape[1:3]) < _SMALLEST_SIDE:
        return Fingerprint(digest)
    return Fingerprint(digest, thumbnail(array), pooled(array) if array.ndim == 4 else None)


def _file_digest(path: str) -> bytes | None:
    """Digest of a file's bytes; None where the image is no file of its own, or the file is empty."""
    if not os.path.isfile(path):  # noqa: PTH113 - in the inner loop
        return None
    with open(path, "rb") as stream:  # noqa: PTH123
        content = stream.read()
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest() if content else None


def match(files: Sequence[str], fingerprints: Sequence[Fingerprint], progress: bool = False) -> Duplicates:
    """Find the copies among pictures.

    Args:
        files: their names.
        fingerprints: one each.
        progress: show a progress bar once it takes longer than two seconds.
    """
    copies: dict[bytes, list[int]] = defaultdict(list)
    for index, item in enumerate(fingerprints):
        if item.digest is not None:
            copies[item.digest].append(index)
    exact = [[files[index] for index in same] for same in copies.values() if len(same) > 1]
    thumbs = [(same[0], fingerprints[same[0]].thumb) for same in copies.values()]
    shown = [(index, thumb) for index, thumb in thumbs if thumb is not None]
    near = []
    if len(shown) > 1:
        for i, j, value in near_duplicates(np.stack([thumb for _, thumb in shown]), progress=progress):
            one, other = fingerprints[shown[i][0]].whole, fingerprints[shown[j][0]].whole
            if one is not None and other is not None:
                value = min(value, volume_similarity(one, other))
            if value > THRESHOLD:
                near.append((files[shown[i][0]], files[shown[j][0]], round(value, 4)))
    return Duplicates(len(files), exact, near)


def find_duplicates(
    dataset_dir: str | os.PathLike[str],
    files: Sequence[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
    workers: int | None = None,
) -> Duplicates:
    """Read pictures once and find the copies among them.

    Args:
        dataset_dir: folder that the files are relative to, or one npz file in it.
        files: relative paths in any order; members of archives as "name.npz#train/17".
        cache_dir: folder whose ``duplicates.json`` is used where it is of the same files, by name, size and time of
            change, and written else; None: nothing is kept.
        progress: show a progress bar once it takes longer than two seconds.
        workers: threads that read at the same time; None: up to eight.

    Raises:
        DataError: the result cannot be written.
    """
    from tqdm import tqdm

    root, files = dataset_root(dataset_dir), sorted(files)
    cache = None if cache_dir is None else Path(cache_dir) / CACHE_NAME
    key = _key(root, files) if cache is not None else ""
    if cache is not None and (known := _cached(cache, key)) is not None:
        return known
    workers = workers or min(_WORKERS, os.cpu_count() or 1)
    fingerprints: list[Fingerprint] = []
    unread = []
    paths = [os.path.join(root, file) for file in files]  # noqa: PTH118 - pathlib is slow on long lists
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(_examine, paths)
        bar = tqdm(found, total=len(files), desc="looking for copies", unit="image", delay=2, disable=not progress)
        for file, item in zip(files, bar, strict=True):
            fingerprints.append(item or Fingerprint(_file_digest(os.path.join(root, file))))  # noqa: PTH118
            if item is None:
                unread.append(file)
    result = match(files, fingerprints, progress)
    result.unread = unread
    if cache is not None:
        content = {"key": key, **asdict(result)}
        write_atomically(cache, (json.dumps(content, indent=1) + "\n").encode("ascii"))
    return result


def _examine(path: str) -> Fingerprint | None:
    """The fingerprint, or None where the picture cannot be read: whoever needs it says why."""
    try:
        return fingerprint(path, read_image(path).array)
    except DataError:
        return None


def _key(root: Path, files: Sequence[str]) -> str:
    """Digest of which files there are and when they were last changed."""
    archives: dict[str, list[int]] = {}
    entries: list[list[object]] = []
    for file in files:
        member = split_member(file)
        archive = file if member is None or (root / file).exists() else member[0]
        if archive not in archives:
            try:
                stat = (root / archive).stat()
                archives[archive] = [stat.st_size, stat.st_mtime_ns]
            except OSError:
                archives[archive] = []
        entries.append([file.encode("utf-8", "surrogateescape").hex(), *archives[archive]])
    return sha256_of([_METHOD, entries])


def _cached(cache: Path, key: str) -> Duplicates | None:
    try:
        content = json.loads(cache.read_text("ascii"))
        if content.pop("key") == key:
            content["near"] = [(a, b, value) for a, b, value in content["near"]]
            return Duplicates(**content)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there is none, or it is of another version: look again
    return None
