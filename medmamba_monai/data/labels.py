"""From label texts to class numbers: a closed list in a fixed order, and every way it can fail.

Imports errors, entries.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from medmamba_monai.data.entries import SEPARATOR, Entry
from medmamba_monai.data.files import natural_key
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["check_class_names", "rename_and_drop", "resolve_class_names"]

RESERVED = frozenset({"file", "group", "label", "prediction", "prediction_set", "ood_score", "fold"})
"""Columns of predictions.csv that classes' names may not repeat."""


def check_class_names(class_names: Sequence[str]) -> list[str]:
    """Class names as a list.

    Raises:
        ConfigError: a name is empty, no string, or there twice.

    Example:
        >>> check_class_names(("benign", "malignant"))
        ['benign', 'malignant']
    """
    if isinstance(class_names, str):
        raise ConfigError(f"class_names is the text {class_names!r}", remedy="give a list of names")
    names = list(class_names)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"class name {name!r} is not a text", remedy="give each class a non-empty name")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"class name {twice[0]!r} is there twice", remedy="give each class its own name")
    return names


def rename_and_drop(
    entries: Sequence[Entry], label_map: Mapping[str, str] | None, exclude_classes: Sequence[str]
) -> list[Entry]:
    """Entries under their final names, without the excluded classes (named before or after renaming).

    An image that may have several findings stays, without those that are excluded.

    Raises:
        DataError: an excluded class does not occur.
    """
    renamed = {str(key): str(value) for key, value in (label_map or {}).items()}
    dropped = {str(name) for name in exclude_classes}
    seen = {name for entry in entries for name in entry.names}
    seen |= {renamed.get(label, label) for label in seen}
    for name in sorted(dropped - seen):
        raise DataError(
            f"exclude_classes names {name!r}, which no image has; labels are {sorted(seen, key=natural_key)[:20]}",
            remedy="correct or remove the name",
        )
    result = []
    for entry in entries:
        kept = [name for name in entry.names if not dropped & {name, renamed.get(name, name)}]
        names = tuple(dict.fromkeys(renamed.get(name, name) for name in kept))
        if entry.findings is not None:
            result.append(replace(entry, label=SEPARATOR.join(names), findings=names))
        elif names:
            result.append(replace(entry, label=names[0]) if entry.label in renamed else entry)
    return result


def resolve_class_names(
    entries: Sequence[Entry], class_names: Sequence[str] | None, *, allow_missing: bool = False
) -> list[str]:
    """Class names in the order that numbers them: as declared, or the labels in natural order.

    Raises:
        DataError: a label is not declared (with the nearest name), a declared class has no image (unless
            ``allow_missing``), labels differ in case only, or there are fewer than two classes.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        for name in entry.names:
            found.setdefault(name, entry)
    if class_names is None:
        names = sorted(found, key=natural_key)
        _refuse_case_twins(names, found)
    else:
        names = check_class_names(class_names)
        _refuse_unknown(found, names)
        absent = [name for name in names if name not in found]
        if absent and not allow_missing:
            raise DataError(
                f"class {absent[0]!r} is declared and no image has it",
                remedy="check the data set and class_names, or allow it with allow_missing_classes",
            )
    if any(entry.findings is None for entry in entries):
        _refuse_several(names, found)
    else:
        _refuse_separator(names)
    _refuse_columns(names)
    if len(names) < 2:
        raise DataError(
            f"there is one class only: {names[0]!r}" if names else "there is no class",
            where=next(iter(found.values())).where if found else None,
            remedy="a classifier needs two classes or more; if the class folders lie one level deeper, "
            "give that folder as dataset_dir",
        )
    return names


def _refuse_columns(names: Sequence[str]) -> None:
    """A class whose column of probabilities would have another column's name could never be evaluated."""
    for name in names:
        if name in RESERVED:
            raise DataError(
                f"class {name!r} has the name of a column of predictions.csv",
                remedy=f"rename it; {', '.join(sorted(RESERVED))} are taken",
            )


def _refuse_several(names: Sequence[str], found: Mapping[str, Entry]) -> None:
    """Labels that look like several findings would each become a class, hundreds of them in some archives."""
    for name in names:
        if SEPARATOR in name:
            raise DataError(
                f"label {name!r} names several classes",
                where=found[name].where if name in found else None,
                remedy="train with task multilabel (--task multilabel), or rename it with label_map",
            )


def _refuse_separator(names: Sequence[str]) -> None:
    for name in names:
        if SEPARATOR in name:
            raise ConfigError(f"class name {name!r} has a {SEPARATOR}, which separates findings", remedy="rename it")


def _refuse_case_twins(names: Sequence[str], found: Mapping[str, Entry]) -> None:
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            raise DataError(
                f"labels {other!r} ({found[other].where}) and {name!r} differ in case or blanks only",
                where=found[name].where,
                remedy="spell the class one way, or map one name to the other with label_map",
            )


def _refuse_unknown(found: Mapping[str, Entry], names: Sequence[str]) -> None:
    for label, entry in found.items():
        if label in names:
            continue
        by_fold = {name.casefold(): name for name in names}
        near = difflib.get_close_matches(label.casefold(), list(by_fold), n=1, cutoff=0.6)
        hint = f"did you mean {by_fold[near[0]]!r}? " if near else ""
        raise DataError(
            f"label {label!r} of {entry.file} is unknown; classes are {list(names)}",
            where=entry.where,
            remedy=f"{hint}Correct the label, rename it with label_map, or leave it out with exclude_classes",
        )
