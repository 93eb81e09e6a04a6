"""The CSV source: file, label, and where given the patient or group and the split of each image.

Imports files, findings, entries.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from medmamba_monai.data.entries import SEPARATOR, Entry, SplitName, parse_split
from medmamba_monai.data.files import FileIndex
from medmamba_monai.data.findings import indicator, indicator_columns, split_findings
from medmamba_monai.data.folders import group_by_pattern
from medmamba_monai.errors import DataError

__all__ = ["findings_entries", "read_table", "table_entries"]

_COLUMNS = {
    "file": ("file", "filename", "file_name", "image", "path", "image_path", "filepath", "image index"),
    "label": ("label", "class", "class_name", "diagnosis", "target", "finding labels"),
    "group": ("patient_id", "group_id", "group", "patient", "patient id"),
    "split": ("split",),
}


def _decode(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="check the path of the label table"
        ) from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise DataError(
            "is not UTF-8 text", where=f"{path.name}, row {row}", remedy="save the table as CSV in UTF-8"
        ) from error


def read_table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows of a CSV file with comma, semicolon or tab between the cells.

    Returns:
        The column names, and (row number in the file, cells) of each row that is not empty; blanks around
        cells are removed.

    Raises:
        DataError: unreadable, not UTF-8, empty, a column name twice, or a row with more or fewer cells than
            columns.
    """
    text = _decode(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    header: list[str] = []
    rows = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                continue
            if not header:
                header = stripped
                continue
            while len(stripped) > len(header) and not stripped[-1]:
                stripped.pop()
            if len(stripped) != len(header):
                raise DataError(
                    f"has {len(stripped)} cells under {len(header)} columns",
                    where=f"{path.name}, row {reader.line_num}",
                    remedy="put names with the delimiter in them into double quotes",
                )
            rows.append((reader.line_num, stripped))
    except csv.Error as error:
        raise DataError(
            f"is no CSV: {error}", where=f"{path.name}, row {reader.line_num}", remedy="save the table as CSV"
        ) from error
    if not header or not rows:
        raise DataError("has no rows", where=str(path), remedy="give a header (file,label) and one row an image")
    for name in header:
        if name and header.count(name) > 1:
            raise DataError(f"has the column {name!r} twice", where=path.name, remedy="keep one of them")
    return header, rows


def _pick_columns(
    path: Path, header: Sequence[str], columns: Mapping[str, str] | None, required: Sequence[str] = ("file", "label")
) -> dict[str, int]:
    """Number of the file, label, group and split columns (those not required where there are such)."""
    lower = [name.lower() for name in header]
    picked = {}
    given = dict(columns or {})
    unknown = set(given) - set(_COLUMNS)
    if unknown:
        raise DataError(
            f"columns has the key {sorted(unknown)[0]!r}",
            where="columns",
            remedy=f"use {', '.join(_COLUMNS)}",
        )
    for role, names in _COLUMNS.items():
        wanted = (given[role],) if given.get(role) else names
        index = next((lower.index(name.lower()) for name in wanted if name.lower() in lower), None)
        if index is not None:
            picked[role] = index
        elif role in required or given.get(role):
            raise DataError(
                f"has no column {wanted[0]!r} (columns: {', '.join(header)})",
                where=path.name,
                remedy=f"name the column {wanted[0]!r}, or say which it is: columns={{{role!r}: '...'}}",
            )
    return picked


def table_entries(
    path: Path,
    root: Path,
    *,
    columns: Mapping[str, str] | None = None,
    split_values: Mapping[str, str] | None = None,
    exclude_files: Sequence[str] = (),
    group_pattern: str | None = None,
    find_by_name: bool = False,
) -> list[Entry]:
    """Entries of a label table.

    Args:
        path: the CSV file.
        root: folder that its file column is relative to.
        columns: column names for the roles "file", "label", "group" and "split" where they are not the usual
            ones.
        split_values: what values of the split column mean, such as {"1": "train", "0": "test"}.
        exclude_files: shell patterns on the file column of rows to leave out.
        group_pattern: regular expression that finds the group in the file's path; a group column goes before
            it.
        find_by_name: accept a file name without folder or suffix where it is unique below ``root``.

    Raises:
        DataError: naming the row: empty cell, file missing, outside the folder or listed twice, unknown
            split, or only some rows with a group or split.
    """
    header, rows = read_table(path)
    at = _pick_columns(path, header, columns)
    found = _located(path, root, header, rows, at, split_values, exclude_files, group_pattern, find_by_name)
    return [Entry(file, cells[at["label"]], where, group, split) for file, cells, where, group, split in found]


def findings_entries(
    path: Path,
    root: Path,
    *,
    class_names: Sequence[str] | None = None,
    label_map: Mapping[str, str] | None = None,
    uncertain: str = "refuse",
    columns: Mapping[str, str] | None = None,
    split_values: Mapping[str, str] | None = None,
    exclude_files: Sequence[str] = (),
    group_pattern: str | None = None,
    find_by_name: bool = False,
) -> tuple[list[Entry], list[str] | None]:
    """Entries of a table of images that may have several findings each, or none.

    The findings stand in one label column, joined by "|", or in a column of 0 and 1 for each class.

    Args:
        path: the CSV file.
        root: folder that its file column is relative to.
        class_names: the classes; columns of these names are looked for where there is no label column.
        label_map: source name -> class name.
        uncertain: what -1 and empty cells of the classes' columns mean, see ``findings.indicator``.
        columns: as for ``table_entries``, so are the rest.
        split_values: see there.
        exclude_files: see there.
        group_pattern: see there.
        find_by_name: see there.

    Returns:
        The entries, and the names of the classes' columns where there are such (they are classes even if no image
        has one of them), else None.

    Raises:
        DataError: as for ``table_entries``, and for labels that cannot be understood.
    """
    header, rows = read_table(path)
    at = _pick_columns(path, header, columns, required=("file",))
    flags = {}
    if "label" not in at:
        flags = indicator_columns(header, rows, list(at.values()), class_names, label_map, path.name)
    entries = []
    found = _located(path, root, header, rows, at, split_values, exclude_files, group_pattern, find_by_name)
    for file, cells, where, group, split in found:
        if flags:
            names = tuple(name for name, at_ in flags.items() if indicator(cells[at_], name, where, uncertain))
        else:
            names = split_findings(cells[at["label"]], where, class_names)
        entries.append(Entry(file, SEPARATOR.join(names), where, group, split, names))
    return entries, list(flags) or None


def _located(
    path: Path,
    root: Path,
    header: Sequence[str],
    rows: Sequence[tuple[int, list[str]]],
    at: Mapping[str, int],
    split_values: Mapping[str, str] | None,
    exclude_files: Sequence[str],
    group_pattern: str | None,
    find_by_name: bool,
) -> Iterator[tuple[str, list[str], str, str | None, SplitName | None]]:
    """File, cells, place, group and split of each row that counts."""
    index = FileIndex(root, by_name=find_by_name)
    seen: dict[str, str] = {}
    for number, cells in rows:
        where = f"{path.name}, row {number}"
        if any(fnmatch(cells[at["file"]], pattern) for pattern in exclude_files):
            continue
        for role, column in at.items():
            if not cells[column]:
                raise DataError(
                    f"the {header[column]} cell is empty",
                    where=where,
                    remedy=f"fill in the {role} of every row",
                )
        file = index.find(cells[at["file"]], where)
        if file in seen:
            raise DataError(f"file {file!r} is there twice, first in {seen[file]}", where=where, remedy="keep one row")
        seen[file] = where
        group = cells[at["group"]] if "group" in at else group_by_pattern(file, group_pattern)
        split: SplitName | None = None
        if "split" in at:
            split = parse_split(cells[at["split"]], where, split_values)
        yield file, cells, where, group, split
