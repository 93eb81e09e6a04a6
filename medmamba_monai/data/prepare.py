"""The one datalist that training, evaluation and inference of a run share. Imports builder and datalist."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from medmamba_monai.data.builder import LabelledSet, build_datalist, collect
from medmamba_monai.data.datalist import Datalist
from medmamba_monai.data.duplicates import find_duplicates
from medmamba_monai.data.entries import SEPARATOR, SPLITS, Entry
from medmamba_monai.data.files import dataset_root, require_folder
from medmamba_monai.data.npz import npz_headers, split_member
from medmamba_monai.errors import DataError

__all__ = ["prepare_datalist"]


def prepare_datalist(
    dataset_dir: str | os.PathLike[str],
    datalist: str | os.PathLike[str] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    *,
    allow_leakage: bool = False,
    keep_copies_together: bool = False,
    progress: bool = False,
    **options: Any,
) -> Datalist:
    """The datalist of a run: given, or written earlier, or built and written once.

    In this order: the file ``datalist`` (JSON, or a CSV label table); ``output_dir``/datalist.json, which
    must match the data set as it is now; a new one from ``dataset_dir`` by ``build_datalist``. What is used
    is written to ``output_dir``/datalist.json if nothing is there. The content depends on the data set and
    the arguments alone and the file is replaced as a whole, so all ranks of a distributed run may call this
    at once.

    Args:
        dataset_dir: folder of the images, or one npz file; never written to.
        datalist: JSON datalist or CSV label table; None or "" where there is none.
        output_dir: folder of the run; None: nothing is read from it or written.
        seed: seed of the split where one is drawn; an earlier list keeps its own.
        class_names: the classes in their order; must agree with a list that exists.
        allow_leakage: accept a list with a group in two splits.
        keep_copies_together: where splits are drawn, read all images first and let copies of one picture come to
            lie in one split, unless leakage is allowed; what was found is kept in ``output_dir``.
        progress: show a progress bar while images are read.
        **options: as for ``build_datalist``, among them ``task``, which must agree with a list that exists.

    Raises:
        DataError: the list, the data set or both cannot be used together; the message says which file
            differs.
    """
    root = require_folder(dataset_dir)
    target = _target(root, output_dir)
    earlier = None
    if target is not None and target.exists():
        earlier = Datalist.load(target, allow_leakage=allow_leakage)
    given = Path(datalist).expanduser() if datalist else None
    task = options.get("task", "multiclass")
    if given is not None and given.suffix.lower() not in (".csv", ".tsv", ".txt"):
        result = Datalist.load(_resolve(given, root), allow_leakage=allow_leakage)
        result.source = {"kind": "json"} | result.source
        if earlier is not None and _content(earlier) != _content(result):
            raise _other_list(target, f"it differs from {given}")
    elif earlier is None:
        options["allow_leakage"] = allow_leakage
        if keep_copies_together and not allow_leakage:
            cache = None if target is None else target.parent
            options["find_copies"] = partial(find_duplicates, root, cache_dir=cache, progress=progress)
        result = build_datalist(root, csv=given, class_names=class_names, seed=seed, **options)
    else:
        result = earlier
        comparable = earlier.source.get("kind") in ("folder", "npz") or _has_table(root, earlier, options.get("layout"))
        _check_task(earlier, task, str(target))
        if given is not None or comparable:
            options.pop("fractions", None)  # the earlier splits stay
            if options.get("uncertain", "refuse") == "refuse":
                options["uncertain"] = earlier.source.get("uncertain", "refuse")  # so does what was decided for them
            now = collect(root, csv=given, class_names=class_names, **options)
            _refuse_changes(earlier, now, target)
    _check_task(result, task, str(given or target or root))
    _check_class_names(result, class_names, str(given or target or root))
    _check_files(result, root, str(given or target or root))
    if earlier is None and target is not None:
        result.save(target)
    return result


def _target(root: Path, output_dir: str | os.PathLike[str] | None) -> Path | None:
    if output_dir is None:
        return None
    output = Path(output_dir).expanduser().resolve()
    folder = root.resolve()
    if output == folder or (folder.is_dir() and folder in output.parents):
        raise DataError(
            f"output_dir {output} lies inside the data set's folder",
            where=str(root),
            remedy="choose an output_dir elsewhere; the data set is never written to",
        )
    return output / "datalist.json"


def _resolve(given: Path, root: Path) -> Path:
    inside = dataset_root(root) / given
    return inside if not given.exists() and inside.exists() else given


def _content(datalist: Datalist) -> tuple[Any, ...]:
    return (datalist.class_names, *(datalist.records(split) for split in SPLITS))


def _has_table(root: Path, earlier: Datalist, layout: Mapping[str, Any] | None) -> bool:
    """Whether the list came from the table that a new list would be made from too."""
    if earlier.source.get("kind") != "csv":
        return False
    if layout is not None:
        return Path(str(layout.get("file"))).name == earlier.source.get("file")
    return (dataset_root(root) / "labels.csv").is_file()


def _other_list(target: Path | None, why: str) -> DataError:
    return DataError(
        f"belongs to other data: {why}",
        where=str(target),
        remedy="use another output_dir for these data, or remove this file to split anew",
    )


def _refuse_changes(earlier: Datalist, now: LabelledSet, target: Path | None) -> None:
    names = earlier.class_names
    records = [record for split in SPLITS for record in earlier.records(split)]
    old = {r["image"]: (SEPARATOR.join(earlier.names_of(r)), r.get("group")) for r in records}
    new = {entry.file: (_label_text(entry, names), entry.group) for entry in now.entries}
    missing, added = [f for f in old if f not in new], [f for f in new if f not in old]
    if missing or added:
        example = f"{missing[0]!r} is gone" if missing else f"{added[0]!r} is new"
        raise _other_list(target, f"{len(missing)} files are gone and {len(added)} are new, for example {example}")
    for file, value in new.items():
        if old[file] != value:
            raise _other_list(target, f"{file!r} was {old[file]} and is {value} now (label, group)")


def _label_text(entry: Entry, names: Sequence[str]) -> str:
    """The label of an image, of several findings their names in the order of the classes."""
    if entry.findings is None:
        return entry.label
    known = [name for name in names if name in entry.findings]
    return SEPARATOR.join(known + [name for name in entry.findings if name not in names])


def _check_task(datalist: Datalist, task: str, where: str) -> None:
    if datalist.task != task:
        raise DataError(
            f"is a {datalist.task} list, task says {task}",
            where=where,
            remedy=f"give --task {datalist.task}, or a datalist and output_dir for {task}",
        )


def _check_class_names(datalist: Datalist, class_names: Sequence[str] | None, where: str) -> None:
    if class_names is not None and list(class_names) != datalist.class_names:
        raise DataError(
            f"has the classes {datalist.class_names}, class_names says {list(class_names)}",
            where=where,
            remedy="give the same names in the same order, or leave class_names out",
        )


def _check_files(datalist: Datalist, dataset_dir: Path, where: str) -> None:
    root = dataset_root(dataset_dir)
    lengths: dict[str, dict[str, int]] = {}
    missing = []
    for split in SPLITS:
        for record in datalist.records(split):
            path = root / record["image"]
            member = split_member(record["image"])
            if member is None or path.exists():
                if not path.exists():
                    missing.append(record["image"])
                continue
            archive, key, index = member
            if archive not in lengths:
                shapes = npz_headers(root / archive) if (root / archive).is_file() else {}
                lengths[archive] = {name: shape[0] for name, (shape, _) in shapes.items() if shape}
            if index >= lengths[archive].get(f"{key}_images", lengths[archive].get(key, 0)):
                missing.append(record["image"])
    if missing:
        raise DataError(
            f"{len(missing)} of its images are not in {root}, for example {missing[0]!r}",
            where=where,
            remedy="check dataset_dir, or use the datalist that belongs to these data",
        )
