"""Several findings an image: how tables and archives say which an image has, and which has none.

Imports entries and errors. The findings of an image are names of classes, joined by "|" where one text is needed
("Mass|Effusion"). A cell that says "No Finding" (or "None", whatever the case) means none of the classes; it stands
alone. Where the classes have a column each, 1 means that the image has the finding and 0 that it has not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from medmamba_monai.data.entries import SEPARATOR
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["TASKS", "Uncertain", "check_task", "indicator", "indicator_columns", "split_findings"]

TASKS = ("multiclass", "multilabel")
Uncertain = Literal["refuse", "negative", "positive"]
_NONE = {"no finding", "no findings", "none"}
_PRESENT: dict[str, int | None] = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": None}


def check_task(task: str, uncertain: str = "refuse") -> None:
    """Refuse a task or a policy for uncertain labels that does not exist.

    Raises:
        ConfigError: naming the choices.
    """
    if task not in TASKS:
        raise ConfigError(f"task={task!r}", remedy=f"use one of {', '.join(TASKS)}")
    if uncertain not in get_args(Uncertain):
        raise ConfigError(f"uncertain={uncertain!r}", remedy=f"use one of {', '.join(get_args(Uncertain))}")


def split_findings(text: str, where: str, class_names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The findings that a cell names, in its order, each once; none of them for "No Finding".

    Args:
        text: such as "Mass|Effusion".
        where: place for messages.
        class_names: the declared classes; "No Finding" among them is a class like any other.

    Raises:
        DataError: an empty name, or "No Finding" together with a finding.

    Example:
        >>> split_findings("Mass | Effusion", "row 2"), split_findings("No Finding", "row 3")
        (('Mass', 'Effusion'), ())
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(SEPARATOR)))
    if "" in names:
        raise DataError(
            f"label {text!r} has an empty name", where=where, remedy=f"write names with {SEPARATOR} between them"
        )
    nothing = [name for name in names if _is_none(name) and name not in (class_names or ())]
    if nothing and len(names) > 1:
        raise DataError(
            f"label {text!r} says {nothing[0]!r} and names a finding",
            where=where,
            remedy=f"write {nothing[0]!r} alone, or the findings alone",
        )
    return () if nothing else names


def _is_none(name: str) -> bool:
    return " ".join(name.replace("_", " ").casefold().split()) in _NONE


def indicator_columns(
    header: Sequence[str],
    rows: Sequence[tuple[int, Sequence[str]]],
    taken: Sequence[int],
    class_names: Sequence[str] | None,
    label_map: Mapping[str, str] | None,
    where: str,
) -> dict[str, int]:
    """The columns of 0 and 1 of a table without a label column: column name -> number, in the order of the classes.

    Args:
        header: column names.
        rows: (row number, cells).
        taken: numbers of the columns that hold file, group and split.
        class_names: the declared classes; then these columns are meant (or those that label_map renames to them).
        label_map: column name -> class name, where they differ.
        where: the table, for messages.

    Raises:
        DataError: a declared class has no column, or, where none are declared, other columns are there too.
    """
    free = {name: index for index, name in enumerate(header) if index not in taken and name}
    renamed = dict(label_map or {})
    if class_names is not None:
        places: dict[str, list[str]] = {name: [] for name in class_names}
        for name in free:
            places.get(renamed.get(name, name), []).append(name)
        lacking = [name for name, columns in places.items() if not columns]
        if lacking:
            raise DataError(
                f"has neither a label column nor a column {lacking[0]!r} (columns: {', '.join(header)})",
                where=where,
                remedy=f"give one column of 0 and 1 a class, or a label column with names joined by {SEPARATOR}",
            )
        return {name: free[name] for columns in places.values() for name in columns}
    flags = {
        name: index
        for name, index in free.items()
        if {cells[index] for _, cells in rows} & {"0", "1", "0.0", "1.0"}
        and all(cells[index] in _PRESENT for _, cells in rows)
    }
    others = [name for name in free if name not in flags]
    if not flags or others:
        hint = f"say which columns are classes: class_names={list(flags)}" if flags else "give each class a column"
        raise DataError(
            "has no label column, and "
            + (f"columns that are not of 0 and 1 alone: {', '.join(others)}" if others else "no column of 0 and 1"),
            where=where,
            remedy=f"{hint}, or a label column with names joined by {SEPARATOR}",
        )
    return flags


def indicator(cell: str, column: str, where: str, uncertain: str = "refuse") -> bool:
    """Whether a cell of a class's column says that the image has the finding.

    Args:
        cell: 0, 1, or -1 (uncertain) or nothing (not mentioned).
        column: its name, for messages.
        where: place for messages.
        uncertain: what -1 means: "refuse" accepts neither it nor an empty cell; "negative" and "positive" take it
            for 0 and 1, and an empty cell for 0 in both cases.

    Raises:
        DataError: another value, or an uncertain one that is refused.

    Example:
        >>> indicator("1.0", "Mass", "row 2"), indicator("-1", "Mass", "row 2", "positive")
        (True, True)
    """
    if cell not in _PRESENT:
        raise DataError(f"column {column!r} holds {cell!r}", where=where, remedy="write 0 or 1")
    value = _PRESENT[cell]
    if value in (0, 1):
        return value == 1
    if uncertain == "refuse":
        raise DataError(
            f"column {column!r} {'is empty' if value is None else 'holds ' + cell + ' (uncertain)'}",
            where=where,
            remedy="write 0 or 1, or say what such cells mean: --uncertain_labels negative takes them for 0, "
            "--uncertain_labels positive takes -1 for 1 and an empty cell for 0",
        )
    return value == -1 and uncertain == "positive"
