"""One labelled image before it has a class number and a split, and the names splits go by.

Imports only errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from medmamba_monai.errors import DataError

__all__ = ["SEPARATOR", "SPLITS", "Entry", "SplitName", "parse_split", "split_or_none"]

SEPARATOR = "|"
"""Between the names where one image has several findings."""

SplitName = Literal["training", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("training", "validation", "test")
_SYNONYMS: dict[str, SplitName] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Entry:
    """What a source says of one image.

    Attributes:
        file: path relative to the data set's folder, with forward slashes (or "name.npz#train/17").
        label: class name as the source spells it, without surrounding blanks; of several findings, their names
            joined by "|".
        where: place for messages, such as "labels.csv, row 7".
        group: patient, lesion or slide that must stay in one split; None where unknown.
        split: the split the source gives; None where it gives none.
        findings: of an image that may have several or none, the names of its classes; None where each image has one.
    """

    file: str
    label: str
    where: str
    group: str | None = None
    split: SplitName | None = None
    findings: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The classes of the image: one, or of several findings any number."""
        return (self.label,) if self.findings is None else self.findings


def split_or_none(name: str) -> SplitName | None:
    """The split that ``name`` means, or None.

    Example:
        >>> split_or_none(" Train "), split_or_none("valid"), split_or_none("benign")
        ('training', 'validation', None)
    """
    return _SYNONYMS.get(name.strip().lower())


def parse_split(name: str, where: str, extra: Mapping[str, str] | None = None) -> SplitName:
    """The split that ``name`` means.

    Args:
        name: a name or synonym: train, training, val, valid, validation, test, testing.
        where: place for the message.
        extra: further names, such as {"1": "train", "0": "test"}.

    Raises:
        DataError: the name is unknown.
    """
    key = name.strip()
    split = split_or_none((extra or {}).get(key, key))
    if split is None:
        raise DataError(
            f"split {name!r} is unknown",
            where=where,
            remedy="use train, val or test, or say what the value means with split_values",
        )
    return split
