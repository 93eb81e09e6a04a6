"""The data check: one pass that reads every image and looks for what would spoil a training.

Finds unreadable and odd files, exact and near duplicates and patients in two splits, and counts classes and sizes.
Imports image, fingerprints and datalists.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.data.builder import build_datalist
from medmamba_monai.data.contact_sheet import tile, write_contact_sheet
from medmamba_monai.data.datalist import Datalist
from medmamba_monai.data.decoded import ReadOptions
from medmamba_monai.data.entries import SPLITS
from medmamba_monai.data.files import dataset_root
from medmamba_monai.data.fingerprints import THRESHOLD, near_duplicates, pooled, thumbnail, volume_similarity
from medmamba_monai.data.image import MedicalImage, make_options, read_with
from medmamba_monai.data.report import CheckReport, Duplicate
from medmamba_monai.errors import DataError

__all__ = ["check_datalist"]

_SMALLEST_SIDE = 32
_EXAMPLES = 8


@dataclass
class _Finding:
    """What is kept of one image."""

    file: str
    split: str
    label: str
    error: str | None = None
    what: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    channels: int = 0
    format: str = ""
    digest: bytes = b""
    thumb: NDArray[np.uint8] | None = None
    whole: NDArray[np.float32] | None = None
    tile: NDArray[np.uint8] | None = None


def check_datalist(
    dataset_dir: str | os.PathLike[str],
    datalist: Datalist | str | os.PathLike[str] | None = None,
    *,
    output_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    workers: int = 1,
    reading: dict[str, Any] | None = None,
    **options: Any,
) -> CheckReport:
    """Read every image of a data set once and report what would spoil a training.

    Args:
        dataset_dir: folder of the images, or one npz file.
        datalist: a datalist, the path of a JSON datalist or CSV label table, or None to build one. Groups in two
            splits are reported here, not refused.
        output_dir: where data_report.json and contact_sheet.png are written; None: nowhere.
        progress: show a progress bar.
        workers: threads that read at the same time (decoders release the interpreter lock).
        reading: arguments of ``read_image`` for all files, such as {"window": (40, 400)}; {"spatial_dims": 3} for
            volumes.
        **options: as for ``build_datalist``, such as dicom_series=True for volumes.

    Returns:
        The findings; ``report.ok`` and ``report.raise_for_problems()`` say whether training can go ahead.

    Raises:
        DataError: the datalist itself cannot be made or read.
    """
    begin = time.perf_counter()
    listed = _as_datalist(dataset_dir, datalist, options)
    root = dataset_root(dataset_dir)
    tasks = list(_tasks(listed))
    read = make_options(**(reading or {}))
    findings = list(_progress(_examine_all(tasks, root, read, workers), len(tasks), progress))
    report = CheckReport(len(findings), _class_counts(listed))
    readable = [finding for finding in findings if finding.error is None]
    report.unreadable = [{"file": f.file, "error": f.error} for f in findings if f.error is not None]
    report.channels = {str(key): n for key, n in Counter(f.channels for f in readable).most_common()}
    report.formats = dict(Counter(f.format for f in readable).most_common())
    report.sizes = _sizes(readable)
    report.odd = list(_odd(readable))
    report.groups_in_two_splits = _divided_groups(listed)
    report.duplicates = [*_exact(readable), *_near(readable)]
    report.seconds = round(time.perf_counter() - begin, 3)
    if output_dir is not None:
        report.save(Path(output_dir) / "data_report.json")
        tiles: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in listed.class_names}
        for finding in readable:
            if finding.tile is not None:
                tiles[finding.label].append(finding.tile)
        write_contact_sheet(Path(output_dir) / "contact_sheet.png", tiles, _EXAMPLES)
    return report


def _as_datalist(
    dataset_dir: str | os.PathLike[str], datalist: Datalist | str | os.PathLike[str] | None, options: dict[str, Any]
) -> Datalist:
    if isinstance(datalist, Datalist):
        return datalist
    lenient = {"allow_leakage": True, "allow_missing_classes": True} | options
    if not datalist:
        return build_datalist(dataset_dir, **lenient)
    if Path(datalist).suffix.lower() in (".csv", ".tsv", ".txt"):
        return build_datalist(dataset_dir, csv=datalist, **lenient)
    return Datalist.load(datalist, allow_leakage=True)


def _tasks(datalist: Datalist) -> Iterator[tuple[str, str, str, bool]]:
    """File, split, label, and whether it is shown on the contact sheet."""
    shown: Counter[int] = Counter()
    for split in SPLITS:
        for record in datalist.records(split):
            label = record["label"]
            shown[label] += 1
            yield record["image"], split, datalist.class_names[label], shown[label] <= _EXAMPLES


def _examine_all(
    tasks: list[tuple[str, str, str, bool]], root: Path, options: ReadOptions, workers: int
) -> Iterator[_Finding]:
    if workers <= 1:
        yield from (_examine(task, root, options) for task in tasks)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda task: _examine(task, root, options), tasks)


def _examine(task: tuple[str, str, str, bool], root: Path, options: ReadOptions) -> _Finding:
    file, split, label, shown = task
    finding = _Finding(file, split, label)
    path = os.path.join(root, file)  # noqa: PTH118 - in the inner loop
    try:
        image = read_with(path, options)
    except DataError as error:
        finding.error = str(error)
        return finding
    array = image.array
    finding.shape, finding.channels, finding.format = array.shape[1:], array.shape[0], str(image.meta["format"])
    finding.what = tuple(_oddities(image))
    finding.digest = _digest(path, array)
    finding.thumb = thumbnail(array)
    finding.whole = pooled(array) if array.ndim == 4 else None
    if shown:
        finding.tile = tile(array)
    return finding


def _digest(path: str, array: NDArray[np.float32]) -> bytes:
    """Digest of the file's bytes; of the pixels where the image is no file of its own."""
    if os.path.isfile(path):  # noqa: PTH113 - in the inner loop
        with open(path, "rb") as stream:  # noqa: PTH123
            return hashlib.blake2b(stream.read(), digest_size=16).digest()
    return hashlib.blake2b(array.tobytes(), digest_size=16).digest()


def _oddities(image: MedicalImage) -> Iterator[str]:
    shape = image.array.shape[1:]
    yield from image.meta.get("notes", [])
    if image.meta.get("frames", 1) > 1:
        yield f"{image.meta['frames']} frames, one of which is read"
    if image.meta.get("nonfinite"):
        yield f"{image.meta['nonfinite']} NaN or infinite pixels replaced"
    flat = image.array.reshape(len(image.array), -1)
    if (flat.min(axis=1) == flat.max(axis=1)).all():
        yield "all pixels are equal"
    unit = "pixels" if len(shape) == 2 else "voxels"
    if min(shape[:2]) < _SMALLEST_SIDE:
        yield f"small: {' x '.join(map(str, shape))} {unit}"
    if max(shape[:2]) > 4 * min(shape[:2]):
        yield f"long: {' x '.join(map(str, shape))} {unit}"


def _progress(findings: Iterable[_Finding], total: int, shown: bool) -> Iterable[_Finding]:
    from tqdm import tqdm

    bar: Iterable[_Finding] = tqdm(findings, total=total, desc="checking images", unit="image", disable=not shown)
    return bar


def _class_counts(datalist: Datalist) -> dict[str, dict[str, int]]:
    counts = {split: datalist.counts(split) for split in SPLITS}
    return {name: {split: counts[split][label] for split in SPLITS} for label, name in enumerate(datalist.class_names)}


def _sizes(findings: list[_Finding]) -> dict[str, Any]:
    if not findings:
        return {}
    dims = max(len(finding.shape) for finding in findings)
    table = np.array([finding.shape for finding in findings if len(finding.shape) == dims])
    common = Counter(finding.shape for finding in findings).most_common(5)
    return {
        "smallest": table.min(axis=0).tolist(),
        "median": np.median(table, axis=0).tolist(),
        "largest": table.max(axis=0).tolist(),
        "commonest": [{"size": list(shape), "images": count} for shape, count in common],
    }


def _odd(findings: list[_Finding]) -> Iterator[dict[str, str]]:
    usual = Counter(finding.channels for finding in findings).most_common(1)
    dims = Counter(len(finding.shape) for finding in findings).most_common(1)
    for finding in findings:
        what = list(finding.what)
        if finding.channels != usual[0][0]:
            what.append(f"{finding.channels} channels, most images have {usual[0][0]}")
        if len(finding.shape) != dims[0][0]:
            what.append(f"{len(finding.shape)}-dimensional, most images have {dims[0][0]} dimensions")
        yield from ({"file": finding.file, "what": item} for item in what)


def _divided_groups(datalist: Datalist) -> list[dict[str, Any]]:
    where: dict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        for record in datalist.records(split):
            if "group" in record:
                where[record["group"]].add(split)
    return [
        {"group": group, "splits": [split for split in SPLITS if split in found]}
        for group, found in where.items()
        if len(found) > 1
    ]


def _pair(a: _Finding, b: _Finding, kind: str, similarity: float) -> Duplicate:
    return Duplicate((a.file, b.file), kind, round(similarity, 4), (a.split, b.split), (a.label, b.label))


def _exact(findings: list[_Finding]) -> Iterator[Duplicate]:
    """Each copy paired with the first of its kind, and with the first in another split, so that no leak is hidden."""
    firsts: dict[bytes, dict[str, _Finding]] = defaultdict(dict)
    for finding in findings:
        known = firsts[finding.digest]
        for other in [item for split, item in known.items() if split != finding.split] or list(known.values()):
            yield _pair(other, finding, "exact", 1.0)
        known.setdefault(finding.split, finding)


def _near(findings: list[_Finding]) -> Iterator[Duplicate]:
    thumbs = [finding.thumb for finding in findings if finding.thumb is not None]
    if thumbs:
        for i, j, similarity in near_duplicates(np.stack(thumbs)):
            a, b = findings[i], findings[j]
            if a.whole is not None and b.whole is not None:
                similarity = min(similarity, volume_similarity(a.whole, b.whole))
            if a.digest != b.digest and similarity > THRESHOLD:
                yield _pair(a, b, "near", similarity)
