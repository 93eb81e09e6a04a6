"""What stands on both sides of a split and makes a test flatter: patients or groups, and copies of pictures.

Imports duplicates and datalist.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from medmamba_monai.data.datalist import Datalist
from medmamba_monai.data.duplicates import Duplicates, find_duplicates
from medmamba_monai.data.entries import SEPARATOR, SPLITS
from medmamba_monai.data.report import Duplicate
from medmamba_monai.errors import DataError

__all__ = ["Leakage", "divided_groups", "find_leakage", "labelled_pairs"]

_NAMED = 5


@dataclass
class Leakage:
    """What two splits of a datalist share.

    Attributes:
        images: number of images compared.
        pairs: copies of one picture in two splits.
        groups: {"group", "splits"} of each patient or other group in two splits.
        unread: files that could not be read, and were compared by their bytes alone.
    """

    images: int
    pairs: list[Duplicate] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether the splits share anything."""
        return bool(self.pairs or self.groups)

    def to_json(self) -> dict[str, Any]:
        """The finding in short, as plain JSON values: numbers, and the first of each kind by name."""
        return {
            "images": self.images,
            "exact_copies": sum(pair.kind == "exact" for pair in self.pairs),
            "near_copies": sum(pair.kind == "near" for pair in self.pairs),
            "groups": len(self.groups),
            "examples": [_told(pair) for pair in self.pairs[:_NAMED]]
            + [f"group {item['group']} ({', '.join(item['splits'])})" for item in self.groups[:_NAMED]],
        }

    def refuse(self, where: str) -> None:
        """Raise where the splits share anything.

        Args:
            where: the datalist, for the message.

        Raises:
            DataError: naming the first pairs and groups, with their files and splits.
        """
        if self:
            raise DataError(
                f"{self.told()}",
                where=where,
                remedy="move all images of a picture, patient or group into one split (a common patient_id in the "
                "label table does so where splits are drawn), or remove the copies; "
                "--allow_leakage true trains nevertheless, with scores that are too good",
            )

    def told(self) -> str:
        """The finding as one sentence."""
        parts = []
        if self.pairs:
            more = f" and {len(self.pairs) - _NAMED} more" if len(self.pairs) > _NAMED else ""
            named = "; ".join(_told(pair) for pair in self.pairs[:_NAMED])
            parts.append(f"{len(self.pairs)} pairs of images in two splits show the same picture: {named}{more}")
        if self.groups:
            first = self.groups[0]
            splits = " and ".join(first["splits"])
            parts.append(f"{len(self.groups)} groups are in two splits, the first: {first['group']!r} in {splits}")
        return "; ".join(parts)


def _told(pair: Duplicate) -> str:
    (a, b), (p, q) = pair.files, pair.splits
    kind = "the same bytes" if pair.kind == "exact" else f"similarity {pair.similarity:.3f}"
    return f"{a} ({p}) = {b} ({q}), {kind}"


def find_leakage(
    dataset_dir: str | os.PathLike[str],
    datalist: Datalist,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Leakage:
    """Compare all images of a datalist, and look for what two of its splits share.

    Args:
        dataset_dir: folder of the images, or one npz file.
        datalist: the images and their splits.
        cache_dir: see ``find_duplicates``.
        progress: see there.

    Raises:
        DataError: the result cannot be kept in ``cache_dir``.
    """
    files = [record["image"] for split in SPLITS for record in datalist.records(split)]
    found = find_duplicates(dataset_dir, files, cache_dir=cache_dir, progress=progress)
    pairs = [pair for pair in labelled_pairs(found, datalist) if pair.splits[0] != pair.splits[1]]
    return Leakage(found.images, pairs, divided_groups(datalist), found.unread)


def labelled_pairs(copies: Duplicates, datalist: Datalist) -> Iterator[Duplicate]:
    """Pairs of copies with the splits and labels that a datalist gives them."""
    of = {record["image"]: (split, record) for split in SPLITS for record in datalist.records(split)}
    for pair in copies.pairs({file: split for file, (split, _) in of.items()}):
        (p, one), (q, two) = (of[file] for file in pair.files)
        labels = SEPARATOR.join(datalist.names_of(one)), SEPARATOR.join(datalist.names_of(two))
        yield Duplicate(pair.files, pair.kind, pair.similarity, (p, q), labels)


def divided_groups(datalist: Datalist) -> list[dict[str, Any]]:
    """{"group", "splits"} of each group that is in two splits or more."""
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
