"""Builds datalists: picks the source, gives classes their numbers and images their split.

Imports the sources below it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmamba_monai.data.datalist import Datalist, Label, Record
from medmamba_monai.data.dealing import deal_out, is_drawn
from medmamba_monai.data.duplicates import DuplicateFinder
from medmamba_monai.data.entries import SPLITS, Entry, SplitName
from medmamba_monai.data.files import dataset_root, natural_key, require_folder
from medmamba_monai.data.findings import check_task
from medmamba_monai.data.folders import folder_entries
from medmamba_monai.data.labels import rename_and_drop, resolve_class_names
from medmamba_monai.data.medmnist import medmnist_entries
from medmamba_monai.data.splits import check_fractions
from medmamba_monai.data.tables import findings_entries, table_entries
from medmamba_monai.errors import DataError

__all__ = ["LabelledSet", "build_datalist", "collect"]


@dataclass(frozen=True)
class LabelledSet:
    """What a source holds before it is split.

    Entries with final labels, class names, and the source's description.
    """

    entries: list[Entry]
    class_names: list[str]
    source: dict[str, Any]
    task: str = "multiclass"


def collect(
    dataset_dir: str | os.PathLike[str],
    *,
    csv: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    label_map: Mapping[str, str] | None = None,
    exclude_classes: Sequence[str] = (),
    exclude_files: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    group_column: str | None = None,
    split_values: Mapping[str, str] | None = None,
    group_pattern: str | None = None,
    find_by_name: bool = False,
    dicom_series: bool = False,
    verify_md5: bool = False,
    allow_missing_classes: bool = False,
    task: str = "multiclass",
    uncertain: str = "refuse",
) -> LabelledSet:
    """Labelled images of a data set, not yet split; arguments and errors as for ``build_datalist``."""
    check_task(task, uncertain)
    path = require_folder(dataset_dir)
    root = dataset_root(path)
    table = _table_of(root, csv) if path.is_dir() or csv is not None else None
    archive = None if table else _archive_of(path)
    source: dict[str, Any]
    if table is not None:
        roles = dict(columns or {}) | ({"group": group_column} if group_column else {})
        reading: dict[str, Any] = {
            "columns": roles,
            "split_values": split_values,
            "exclude_files": exclude_files,
            "group_pattern": group_pattern,
            "find_by_name": find_by_name,
        }
        policy: dict[str, str] = {}
        if task == "multilabel":
            entries, flags = findings_entries(
                table, root, class_names=class_names, label_map=label_map, uncertain=uncertain, **reading
            )
            class_names = class_names or _final_names(flags, label_map, exclude_classes)
            policy = {"uncertain": uncertain} if flags and uncertain != "refuse" else {}
        else:
            entries = table_entries(table, root, **reading)
        source = {"kind": "csv", "file": table.name, "sha256": hashlib.sha256(table.read_bytes()).hexdigest()} | policy
    elif archive is not None:
        entries, names = medmnist_entries(archive, check_md5=verify_md5, task=task)
        present = {name for entry in entries for name in entry.names} - set(exclude_classes)
        if class_names is None and not label_map:
            class_names = [name for name in names if name in present]
        source = {"kind": "npz", "file": archive.name}
    else:
        if task == "multilabel":
            raise DataError(
                "class folders give each image one class, task multilabel needs a table",
                where=str(path),
                remedy="put a labels.csv beside the images (file and label, several names joined by |, or a column of "
                "0 and 1 for each class), or train with task multiclass",
            )
        entries = folder_entries(
            root, exclude_files=exclude_files, group_pattern=group_pattern, dicom_series=dicom_series
        )
        source = {"kind": "folder"}
    entries = rename_and_drop(entries, label_map, exclude_classes)
    if not entries:
        raise DataError("no images are left", where=str(path), remedy="exclude fewer classes or files")
    names = resolve_class_names(entries, class_names, allow_missing=allow_missing_classes)
    return LabelledSet(entries, names, source, task)


def _final_names(
    columns: Sequence[str] | None, label_map: Mapping[str, str] | None, exclude_classes: Sequence[str]
) -> list[str] | None:
    """The classes that columns stand for, in their order; None where there are no such columns."""
    renamed = dict(label_map or {})
    kept = [name for name in columns or () if not {name, renamed.get(name, name)} & set(exclude_classes)]
    return list(dict.fromkeys(renamed.get(name, name) for name in kept)) or None


def build_datalist(
    dataset_dir: str | os.PathLike[str],
    *,
    csv: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    allow_missing_classes: bool = False,
    allow_leakage: bool = False,
    find_copies: DuplicateFinder | None = None,
    **options: Any,
) -> Datalist:
    """Make the datalist of a data set; nothing is written.

    The source is, in this order: ``csv``; labels.csv in ``dataset_dir``; an npz file (``dataset_dir`` itself
    or the only one in it); folders train, val and test with class folders in them; class folders. Splits that
    the source gives are kept; where it gives training and test but no validation part, that is taken from the
    training part, and where it gives none, all three are drawn: stratified, grouped and seeded.

    Args:
        dataset_dir: folder of the images, or one npz file; never written to.
        csv: label table (file, label, optional patient_id, group_id or group, optional split); a bare name is
            also looked for in ``dataset_dir``.
        class_names: the classes in their order; None: the labels in natural order.
        fractions: shares of training, validation and test.
        seed: seed of the split.
        allow_missing_classes: accept a class without images, or with fewer groups than there are splits.
        allow_leakage: accept given splits with a group in two of them.
        find_copies: finds pictures that are there several times; asked where splits are drawn, and copies then come
            to lie in one split. None: files are not opened. ``functools.partial(find_duplicates, dataset_dir)``.
        **options: label_map (source label -> class name), exclude_classes, exclude_files (shell patterns),
            columns (role -> column name for file, label, group, split), group_column, split_values (value ->
            split), group_pattern (regular expression on the path), find_by_name, dicom_series (a folder of
            DICOM files is one volume), verify_md5 (of MedMNIST files), task ("multiclass", or "multilabel" where an
            image may have several classes or none, see ``findings``), uncertain (what -1 and empty cells of the
            classes' columns mean then: "refuse", "negative" or "positive").

    Raises:
        DataError: no images, unknown label, one class only, missing file, a group in two splits, …: the
            message names the file or row and the remedy.
        ConfigError: arguments that make no sense.
    """
    labelled = collect(
        dataset_dir, csv=csv, class_names=class_names, allow_missing_classes=allow_missing_classes, **options
    )
    names, entries = labelled.class_names, labelled.entries
    shares = check_fractions(fractions)
    drawn = is_drawn(entries, shares)
    copies = find_copies([entry.file for entry in entries]) if drawn and find_copies is not None else None
    splits = deal_out(entries, names, shares, seed, duplicates=copies, lenient=allow_missing_classes)
    parts: dict[SplitName, list[Record]] = {split: [] for split in SPLITS}
    for entry, split in zip(entries, splits, strict=True):
        record: Record = {"image": entry.file, "label": _label(entry, names)}
        if entry.group is not None:
            record["group"] = entry.group
        parts[split].append(record)
    source = labelled.source | {"splits": "drawn" if drawn else "given"}
    if drawn:
        source["fractions"] = list(shares)
    if copies is not None and (together := copies.clusters()):
        source["copies_kept_together"] = together
    datalist = Datalist(names, **parts, seed=seed if drawn else None, source=source, task=labelled.task)
    where = str(source.get("file", dataset_dir))
    datalist.check_disjoint(where, allow_leakage=allow_leakage)
    if not allow_missing_classes:
        _refuse_untrained(datalist, where)
    return datalist


def _table_of(root: Path, csv: str | os.PathLike[str] | None) -> Path | None:
    if csv is None:
        default = root / "labels.csv"
        return default if default.is_file() else None
    given = Path(csv).expanduser()
    for path in (given, root / given):
        if path.is_file():
            return path
    raise DataError("this label table does not exist", where=str(given), remedy="check the path of the CSV file")


def _archive_of(path: Path) -> Path | None:
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return path
        raise DataError("is no folder", where=str(path), remedy="give the folder of the images or an npz file")
    archives = sorted(path.glob("*.npz"), key=lambda item: natural_key(item.name))
    if len(archives) > 1:
        raise DataError(
            f"holds several npz files: {', '.join(item.name for item in archives)}",
            where=str(path),
            remedy="give one of them as dataset_dir",
        )
    return archives[0] if archives else None


def _label(entry: Entry, names: Sequence[str]) -> Label:
    if entry.findings is None:
        return names.index(entry.label)
    return [int(name in entry.findings) for name in names]


def _refuse_untrained(datalist: Datalist, where: str) -> None:
    if not datalist.training:
        raise DataError("there is no training image", where=where, remedy="give the training split its images")
    for name, count in zip(datalist.class_names, datalist.counts("training"), strict=True):
        if count == 0:
            raise DataError(
                f"class {name!r} has no training image",
                where=where,
                remedy=f"add some, leave it out with exclude_classes=['{name}'], or allow it with "
                "allow_missing_classes",
            )
