"""Cross-validation folds of a datalist: every image is tested once, by a model that saw nothing of its group.

Imports splits, duplicates and datalist.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from medmamba_monai.data.datalist import Datalist, Record
from medmamba_monai.data.duplicates import Duplicates
from medmamba_monai.data.entries import SPLITS, SplitName
from medmamba_monai.data.splits import assign_parts
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["deal_folds"]

LEAST_FOLDS = 2


def deal_folds(
    pool: Datalist,
    folds: int,
    *,
    seed: int = 0,
    validation: float = 0.15,
    parts: Sequence[SplitName] = SPLITS,
    copies: Duplicates | None = None,
) -> list[Datalist]:
    """Deal the images of a datalist out anew, once for each fold.

    The test part of fold k is the k-th of ``folds`` parts with equal shares of every class; validation is a share
    of the other images, training the rest. Patients or other groups stay whole throughout, and so do copies of a
    picture where they are known, together with all that is in their groups.

    Args:
        pool: the images; what part they are in does not matter.
        folds: number of folds, at least 2.
        seed: of the folds and of the validation parts.
        validation: share of the images outside the fold that decides which weights are kept, above 0 and below 1.
        parts: parts of ``pool`` to take images from; the others are left out altogether.
        copies: pictures that are there several times; None: not looked for.

    Returns:
        One datalist a fold, its ``source`` naming the fold.

    Raises:
        ConfigError: numbers that make no sense.
        DataError: a class has too few images or groups for that many folds.

    Example:
        >>> records = [{"image": f"{i}.png", "label": i % 2, "group": f"P{i // 2}"} for i in range(24)]
        >>> dealt = deal_folds(Datalist(["a", "b"], training=records), 3)
        >>> [len(datalist.test) for datalist in dealt], len({r["image"] for d in dealt for r in d.test})
        ([8, 8, 8], 24)
    """
    if folds < LEAST_FOLDS:
        raise ConfigError(f"{folds} folds", where="folds", remedy="give at least 2")
    if not 0 < validation < 1:
        raise ConfigError(f"a share of {validation} for validation", remedy="give a number between 0 and 1")
    records = [record for part in parts for record in pool.records(part)]
    if not records:
        raise DataError(f"there are no images in {', '.join(parts)}", remedy="choose other parts")
    units = _units(records, copies)
    _refuse_small_classes(pool, records, units, folds)
    fold_of = assign_parts(_classes(records), units, [1 / folds] * folds, seed)
    return [
        _fold(pool, records, units, [other == fold for other in fold_of], validation, seed, (fold, folds))
        for fold in range(folds)
    ]


def _units(records: Sequence[Record], copies: Duplicates | None) -> list[Hashable]:
    """What is never divided; a tuple keeps a file without a group apart from every given name."""
    groups: list[Hashable] = [record.get("group") or ("file", record["image"]) for record in records]
    return groups if copies is None else copies.joined([record["image"] for record in records], groups)


def _classes(records: Sequence[Record]) -> list[int | list[int]]:
    found: list[int | list[int]] = []
    for record in records:
        label = record["label"]
        found.append(label if isinstance(label, int) else [index for index, flag in enumerate(label) if flag])
    return found


def _fold(
    pool: Datalist,
    records: Sequence[Record],
    units: Sequence[Hashable],
    held_out: Sequence[bool],
    validation: float,
    seed: int,
    fold: tuple[int, int],
) -> Datalist:
    rest = [index for index, out in enumerate(held_out) if not out]
    classes, others = _classes([records[index] for index in rest]), [units[index] for index in rest]
    part_of = dict(zip(rest, assign_parts(classes, others, (1 - validation, validation), seed), strict=True))
    dealt: dict[SplitName, list[Record]] = {split: [] for split in SPLITS}
    for index, record in enumerate(records):
        dealt[SPLITS[part_of.get(index, 2)]].append(record)
    source = {key: value for key, value in pool.source.items() if key not in ("fractions", "splits")}
    source |= {"splits": "fold", "fold": fold[0] + 1, "folds": fold[1], "validation": validation}
    datalist = Datalist(list(pool.class_names), **dealt, seed=seed, source=source, task=pool.task)
    for split in SPLITS:
        for name, count in zip(datalist.class_names, datalist.counts(split), strict=True):
            if count == 0:
                raise DataError(
                    f"class {name!r} would have no {split} image in fold {fold[0] + 1} of {fold[1]}: most of its "
                    "images belong to few patients or groups",
                    remedy="use more folds, a larger share for validation, or add patients",
                )
    return datalist


def _refuse_small_classes(pool: Datalist, records: Sequence[Record], units: Sequence[Hashable], folds: int) -> None:
    """A class needs a unit in every fold's test part, and two outside of each."""
    found = {(name, unit) for record, unit in zip(records, units, strict=True) for name in pool.names_of(record)}
    needed = max(folds, LEAST_FOLDS + 1)
    for name in pool.class_names:
        count = sum(known == name for known, _ in found)
        if count < needed:
            raise DataError(
                f"class {name!r} has {count} images or patients that are no copies of one another, too few for "
                f"{folds} folds",
                remedy=f"use fewer folds (each class needs {needed} for these), or add images",
            )
