"""The data check: one pass that reads every image and looks for what would spoil a training.

Finds unreadable and odd files, exact and near duplicates and patients in two splits, and counts classes and sizes.
Imports image, duplicates and datalists.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.data.builder import build_datalist
from medmamba_monai.data.contact_sheet import tile, write_contact_sheet
from medmamba_monai.data.datalist import Datalist
from medmamba_monai.data.decoded import ReadOptions
from medmamba_monai.data.duplicates import Fingerprint, fingerprint, match
from medmamba_monai.data.entries import SPLITS
from medmamba_monai.data.files import dataset_root
from medmamba_monai.data.image import MedicalImage, make_options, read_with
from medmamba_monai.data.leakage import divided_groups, labelled_pairs
from medmamba_monai.data.report import CheckReport
from medmamba_monai.errors import DataError

__all__ = ["check_datalist"]

_SMALLEST_SIDE = 32
_EXAMPLES = 8
_NOTHING = "no finding"


@dataclass
class _Finding:
    """What is kept of one image."""

    file: str
    names: tuple[str, ...]
    error: str | None = None
    what: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    channels: int = 0
    format: str = ""
    fingerprint: Fingerprint = field(default_factory=lambda: Fingerprint(None))
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

    Where splits are drawn, they are drawn as in training: copies of a picture come to lie in one split.

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
    readable = [finding for finding in findings if finding.error is None]
    copies = match([f.file for f in readable], [f.fingerprint for f in readable], progress)
    if listed.source.get("splits") == "drawn" and not isinstance(datalist, Datalist):
        listed = _as_datalist(dataset_dir, datalist, {**options, "find_copies": lambda files: copies})
    report = CheckReport(len(findings), _class_counts(listed))
    report.unreadable = [{"file": f.file, "error": f.error} for f in findings if f.error is not None]
    report.channels = {str(key): n for key, n in Counter(f.channels for f in readable).most_common()}
    report.formats = dict(Counter(f.format for f in readable).most_common())
    report.sizes = _sizes(readable)
    report.odd = list(_odd(readable))
    report.groups_in_two_splits = divided_groups(listed)
    report.duplicates = list(labelled_pairs(copies, listed))
    report.seconds = round(time.perf_counter() - begin, 3)
    if output_dir is not None:
        report.save(Path(output_dir) / "data_report.json")
        write_contact_sheet(Path(output_dir) / "contact_sheet.png", _tiles(readable, listed), _EXAMPLES)
    return report


def _tiles(findings: list[_Finding], datalist: Datalist) -> dict[str, list[NDArray[np.uint8]]]:
    """The first images of each class; of those without any, too, where there are such."""
    tiles: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in datalist.class_names}
    for finding in findings:
        if finding.tile is not None:
            for name in finding.names or (_NOTHING,):
                tiles.setdefault(name, []).append(finding.tile)
    return tiles


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


def _tasks(datalist: Datalist) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """File, class names, and whether it is shown on the contact sheet."""
    shown: Counter[str] = Counter()
    for split in SPLITS:
        for record in datalist.records(split):
            names = datalist.names_of(record)
            shown.update(names or (_NOTHING,))
            yield record["image"], names, min(shown[name] for name in names or (_NOTHING,)) <= _EXAMPLES


def _examine_all(
    tasks: list[tuple[str, tuple[str, ...], bool]], root: Path, options: ReadOptions, workers: int
) -> Iterator[_Finding]:
    if workers <= 1:
        yield from (_examine(task, root, options) for task in tasks)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda task: _examine(task, root, options), tasks)


def _examine(task: tuple[str, tuple[str, ...], bool], root: Path, options: ReadOptions) -> _Finding:
    file, names, shown = task
    finding = _Finding(file, names)
    path = os.path.join(root, file)  # noqa: PTH118 - in the inner loop
    try:
        image = read_with(path, options)
    except DataError as error:
        finding.error = str(error)
        return finding
    array = image.array
    finding.shape, finding.channels, finding.format = array.shape[1:], array.shape[0], str(image.meta["format"])
    finding.what = tuple(_oddities(image))
    finding.fingerprint = fingerprint(path, array)
    if shown:
        finding.tile = tile(array)
    return finding


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
