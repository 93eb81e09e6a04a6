"""How the archive of a public data set is laid out, as a few plain values, and where its parts lie in a folder.

Imports errors, entries and files. Nothing here opens a picture or reads a table.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medmamba_monai.data.entries import split_or_none
from medmamba_monai.data.files import natural_key
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["KINDS", "Layout", "Place", "locate", "parse_layout"]

_DEPTH = 2  # unpacking puts an archive one or two folders deep

Check = tuple[Callable[[Any], bool], str]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_text, value))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, [*value, *value.values()]))


_TEXT: Check = (_is_text, "a text")
_TEXTS: Check = (_is_texts, "a list of texts")
_MAPPING: Check = (_is_mapping, "a dictionary of texts")
_FLAG: Check = (lambda value: isinstance(value, bool), "true or false")
_LABELS = {"label_map": _MAPPING, "exclude_classes": _TEXTS}
_FILES = {"exclude_files": _TEXTS, "group_pattern": _TEXT}

KINDS: dict[str, dict[str, Check]] = {
    "folders": _LABELS | _FILES | {"dicom_series": _FLAG},
    "table": _LABELS | _FILES | {"file": _TEXT, "columns": _MAPPING, "split_values": _MAPPING, "find_by_name": _FLAG},
    "npz": _LABELS | {"name": _TEXT, "verify_md5": _FLAG},
}
"""What a layout of each kind may say; all but the place is passed on to ``build_datalist``."""

_PLACES = {"table": "file", "npz": "name"}


@dataclass(frozen=True)
class Layout:
    """A checked layout.

    Attributes:
        kind: "folders" (one a class), "table" (a CSV file lists the images) or "npz" (a MedMNIST archive).
        place: name of the table ("file") or of the archive ("name", without size and suffix); "" for folders.
        options: arguments of ``build_datalist``.
    """

    kind: str
    place: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def takes(self, archive: str) -> bool:
        """Whether a file of this name is the archive, in any of its sizes.

        Example:
            >>> layout = Layout("npz", "bloodmnist")
            >>> layout.takes("bloodmnist_64.npz"), layout.takes("BloodMNIST.npz"), layout.takes("pathmnist.npz")
            (True, True, False)
        """
        return re.fullmatch(rf"{re.escape(self.place)}(_.+)?\.npz", archive, re.IGNORECASE) is not None


@dataclass(frozen=True)
class Place:
    """Where the labels of a data set stand: a table, an npz archive, or the folder that holds the class folders."""

    kind: Literal["folders", "table", "npz"]
    path: Path


def parse_layout(value: Mapping[str, Any]) -> Layout:
    """Check a layout as it stands in a config.

    Args:
        value: "kind" and what ``KINDS`` lists for it; a table must name its "file", an npz archive its "name".

    Raises:
        ConfigError: an unknown kind or key, a missing key, or a value of the wrong type.

    Example:
        >>> parse_layout({"kind": "table", "file": "metadata.csv", "columns": {"label": "diagnostic"}}).place
        'metadata.csv'
    """
    given = dict(value)
    kind = given.pop("kind", None)
    if kind not in KINDS:
        raise ConfigError(f"kind {kind!r} is not known", where="layout", remedy=f"use one of {', '.join(KINDS)}")
    for key, item in given.items():
        if key not in KINDS[kind]:
            near = difflib.get_close_matches(key, KINDS[kind], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(KINDS[kind])}"
            raise ConfigError(f"key {key!r} is not known for {kind}", where="layout", remedy=hint)
        fits, wanted = KINDS[kind][key]
        if not fits(item):
            raise ConfigError(f"{key} must be {wanted}, not {item!r}", where="layout")
    place = _PLACES.get(kind)
    if place is not None and place not in given:
        raise ConfigError(f"kind {kind!r} needs the key {place!r}", where="layout")
    return Layout(kind, given.pop(place) if place else "", given)


def locate(layout: Layout, path: Path, class_names: Sequence[str] | None) -> Place:
    """Find the labels of an archive, in the folder that was named or up to two folders below it.

    Args:
        layout: how the archive is laid out.
        path: what the user named: the folder, or the npz file itself.
        class_names: the classes, whose folders are looked for; None: those of ``path`` are taken as they are.

    Raises:
        DataError: it is not there, or there several times.
    """
    if layout.kind == "npz":
        return Place("npz", _archive(layout, path))
    if not path.is_dir():
        raise DataError("is no folder", where=str(path), remedy="give the folder that the archive was unpacked into")
    if layout.kind == "table":
        found = _shallowest(path, lambda folder: (folder / layout.place).is_file())
        table = _only(found, path, f"the table {layout.place}")
        return Place("table", table / layout.place)
    if class_names is None:
        return Place("folders", path)
    wanted = _source_labels(layout, class_names)
    found = _shallowest(path, lambda folder: _holds_classes(folder, wanted))
    if found:
        return Place("folders", _only(found, path, "the class folders"))
    raise _missing_classes(path, wanted)


def _source_labels(layout: Layout, class_names: Sequence[str]) -> list[str]:
    renamed: Mapping[str, str] = layout.options.get("label_map", {})
    wanted = [[old for old, new in renamed.items() if new == name] or [name] for name in class_names]
    return [label for labels in wanted for label in labels]


def _archive(layout: Layout, path: Path) -> Path:
    candidates = [path] if path.is_file() else sorted(path.glob("*.npz"), key=lambda item: natural_key(item.name))
    fitting = [item for item in candidates if layout.takes(item.name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(
            f"holds several sizes: {', '.join(item.name for item in fitting)}",
            where=str(path),
            remedy="give one of the files as dataset_dir",
        )
    there = f" (there is {', '.join(item.name for item in candidates[:5])})" if candidates else ""
    raise DataError(
        f"holds no {layout.place}.npz or {layout.place}_SIZE.npz{there}",
        where=str(path),
        remedy="give the archive, or the folder it lies in, as dataset_dir",
    )


def _shallowest(path: Path, fits: Callable[[Path], bool]) -> list[Path]:
    """All fitting folders of the first level that has one."""
    level = [path]
    for _ in range(_DEPTH + 1):
        found = [folder for folder in level if fits(folder)]
        if found:
            return found
        level = [below for folder in level for below in _subfolders(folder)]
    return []


def _subfolders(folder: Path) -> list[Path]:
    try:
        inside = [item for item in folder.iterdir() if not item.name.startswith((".", "__")) and item.is_dir()]
    except PermissionError:  # of somebody else, beside the archive
        return []
    return sorted(inside, key=lambda item: natural_key(item.name))


def _holds_classes(folder: Path, wanted: Sequence[str]) -> bool:
    """Whether the class folders lie in ``folder``, or in its train folder."""
    if all((folder / name).is_dir() for name in wanted):
        return True
    trains = (item for item in _subfolders(folder) if split_or_none(item.name) == "training")
    return any(all((train / name).is_dir() for name in wanted) for train in trains)


def _only(found: Sequence[Path], path: Path, what: str) -> Path:
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(
            f"{what} is neither here nor up to {_DEPTH} folders below",
            where=str(path),
            remedy="give the folder that the archive was unpacked into",
        )
    names = ", ".join(str(folder.relative_to(path)) for folder in found)
    raise DataError(f"{what} are in several folders: {names}", where=str(path), remedy="give one of them")


def _missing_classes(path: Path, wanted: Sequence[str]) -> DataError:
    """Name the class folders that lack in the folder that has most of them."""
    best, lacking = path, list(wanted)
    level = [path]
    for _ in range(_DEPTH + 1):
        for folder in level:
            absent = [name for name in wanted if not (folder / name).is_dir()]
            if len(absent) < len(lacking):
                best, lacking = folder, absent
        level = [below for folder in level for below in _subfolders(folder)]
    return DataError(
        f"has no class folder {', '.join(map(repr, lacking))}",
        where=str(best),
        remedy="give the folder that holds one folder a class, named exactly so",
    )
