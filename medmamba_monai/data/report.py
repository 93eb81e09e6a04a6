"""What a check of a data set found, as an object and as JSON. Imports datalist, storage and errors."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from medmamba_monai.data.storage import write_atomically
from medmamba_monai.errors import DataError

__all__ = ["CheckReport", "Duplicate"]

_LISTED = 1000


@dataclass(frozen=True)
class Duplicate:
    """Two images that are the same picture.

    Attributes:
        files: their paths.
        kind: "exact" (same bytes) or "near" (re-encoded, resized, mirrored or turned).
        similarity: correlation of their fingerprints, 1 for exact ones.
        splits: the split of each.
        labels: the class name of each.
    """

    files: tuple[str, str]
    kind: str
    similarity: float
    splits: tuple[str, str]
    labels: tuple[str, str]


@dataclass
class CheckReport:
    """Findings of ``check_datalist``.

    Attributes:
        images: number of images in the datalist.
        class_counts: class name -> split -> number of images.
        sizes: smallest, median and largest size, rows first, and the commonest sizes with their numbers.
        formats: kind of file -> number of images.
        channels: number of channels as stored -> number of images.
        unreadable: {"file", "error"} of each image that cannot be read.
        odd: {"file", "what"} of images that can be read but may not be what was meant.
        groups_in_two_splits: {"group", "splits"} of patients or other groups on both sides.
        duplicates: pairs of images that are the same picture.
        seconds: how long the check took.
    """

    images: int
    class_counts: dict[str, dict[str, int]]
    sizes: dict[str, Any] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    odd: list[dict[str, str]] = field(default_factory=list)
    groups_in_two_splits: list[dict[str, Any]] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def leaks(self) -> list[Duplicate]:
        """Duplicates whose two images are in different splits."""
        return [pair for pair in self.duplicates if pair.splits[0] != pair.splits[1]]

    @property
    def conflicts(self) -> list[Duplicate]:
        """Duplicates whose two images have different labels."""
        return [pair for pair in self.duplicates if pair.labels[0] != pair.labels[1]]

    @property
    def ok(self) -> bool:
        """Whether training can go ahead: every image readable, nothing on both sides of a split."""
        return not (self.unreadable or self.leaks or self.groups_in_two_splits)

    def raise_for_problems(self) -> None:
        """Refuse the data set where ``ok`` is false.

        Raises:
            DataError: naming the first finding and how many there are.
        """
        if self.unreadable:
            raise DataError(
                f"{len(self.unreadable)} images cannot be read, the first: {self.unreadable[0]['error']}",
                remedy="repair or remove them",
            )
        if self.groups_in_two_splits:
            first = self.groups_in_two_splits[0]
            raise DataError(
                f"{len(self.groups_in_two_splits)} groups are in more than one split, the first: "
                f"{first['group']!r} in {' and '.join(first['splits'])}",
                remedy="put all images of a patient or group into one split",
            )
        if self.leaks:
            first_pair = self.leaks[0]
            raise DataError(
                f"{len(self.leaks)} pictures are on both sides of a split, the first: {first_pair.files[0]} "
                f"({first_pair.splits[0]}) and {first_pair.files[1]} ({first_pair.splits[1]}, {first_pair.kind})",
                remedy="give both the same group in the label table, or remove one",
            )

    def to_json(self) -> dict[str, Any]:
        """The findings as plain JSON values; lists are cut at 1000 entries, their true lengths are in "counts"."""
        content = asdict(self)
        lists = ("unreadable", "odd", "groups_in_two_splits", "duplicates")
        counts = {name: len(content[name]) for name in lists}
        counts |= {"leaks": len(self.leaks), "label_conflicts": len(self.conflicts)}
        return {"ok": self.ok, "counts": counts} | content | {name: content[name][:_LISTED] for name in lists}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file, whole or not at all.

        Raises:
            DataError: the file cannot be written.
        """
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"
        write_atomically(path, text.encode("utf-8", errors="surrogateescape"))
