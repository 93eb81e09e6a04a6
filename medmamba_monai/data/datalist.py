"""The datalist: which image belongs to which class and split, as one JSON file in MONAI's style.

Imports storage, entries.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import numpy as np

from medmamba_monai.data.entries import SPLITS, SplitName, parse_split
from medmamba_monai.data.files import dataset_root
from medmamba_monai.data.findings import TASKS
from medmamba_monai.data.labels import check_class_names
from medmamba_monai.data.storage import sha256_of, write_atomically
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["Datalist", "Label", "Record"]

Label: TypeAlias = int | list[int]
"""A class number; or, where an image may have several classes, a 0 or 1 for each class."""


class _Labelled(TypedDict):
    image: str
    label: Label


class Record(_Labelled, total=False):
    """One image of a datalist: relative path, label, and the patient or other group where known."""

    group: str


@dataclass
class Datalist:
    """Images, labels and splits of one data set.

    Attributes:
        class_names: name of class 0, 1, ….
        training: records of the training part; "image" is relative to the data set's folder.
        validation: records of the validation part.
        test: records of the test part.
        seed: seed of the split, or None where the source gave the splits.
        source: what the list was made from, as plain JSON values.
        task: "multiclass" (each image has one class, its number is the label) or "multilabel" (each has any number
            of classes, the label is a list with a 0 or 1 for each).

    Example:
        >>> datalist = Datalist(["a", "b"], training=[{"image": "a/1.png", "label": 0}])
        >>> datalist.labels("training"), datalist.items("train", "/set")[0]["file"]
        ([0], 'a/1.png')
    """

    class_names: list[str]
    training: list[Record] = field(default_factory=list)
    validation: list[Record] = field(default_factory=list)
    test: list[Record] = field(default_factory=list)
    seed: int | None = None
    source: dict[str, Any] = field(default_factory=dict)
    task: str = "multiclass"

    def records(self, split: str) -> list[Record]:
        """Records of one split, which may be empty; synonyms such as "train" and "val" are understood."""
        records: list[Record] = getattr(self, parse_split(split, "datalist"))
        return records

    def labels(self, split: str) -> list[Any]:
        """Labels of one split, in order: class numbers, or lists of 0 and 1 (see ``task``)."""
        return [record["label"] for record in self.records(split)]

    def counts(self, split: str) -> list[int]:
        """Number of images of each class in one split."""
        counter = Counter(name for record in self.records(split) for name in self.names_of(record))
        return [counter[name] for name in self.class_names]

    def names_of(self, record: Record) -> tuple[str, ...]:
        """The names of an image's classes: one, or with several labels any number, in the order of the classes."""
        label = record["label"]
        if isinstance(label, int):
            return (self.class_names[label],)
        return tuple(name for name, flag in zip(self.class_names, label, strict=True) if flag)

    def items(self, split: str, dataset_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
        """What a data set is made of.

        {"image": absolute path, "label": number, "file": relative path, ["group"]}; with several labels an
        image, "label" is a float32 array of 0 and 1 (C,), which loaders stack to (B, C).

        Raises:
            DataError: the split has no image.
        """
        records = self.records(split)
        if not records:
            raise DataError(
                f"the datalist has no {parse_split(split, 'datalist')} images",
                remedy="give this split its images in the datalist, CSV or folders, or a fraction above 0",
            )
        root = dataset_root(dataset_dir)
        return [
            {"image": os.path.join(root, r["image"]), "label": _target(r["label"]), "file": r["image"]}  # noqa: PTH118 - speed
            | ({"group": r["group"]} if "group" in r else {})
            for r in records
        ]

    def to_json(self) -> dict[str, Any]:
        """The content as plain JSON values, in the order of the file."""
        content: dict[str, Any] = {} if self.task == "multiclass" else {"task": self.task}
        content["class_names"] = list(self.class_names)
        content |= {split: self.records(split) for split in SPLITS}
        return content | {"seed": self.seed, "source": self.source}

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: equal for equal content, however the file is laid out."""
        return sha256_of(self.to_json())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file; a reader at any time finds the old file or the new one, whole.

        Raises:
            DataError: the file cannot be written.
        """
        lines = [] if self.task == "multiclass" else [f'"task": {json.dumps(self.task)}']
        lines += [f'"class_names": {json.dumps(self.class_names, ensure_ascii=False)}']
        for split in SPLITS:
            rows = ",\n".join("  " + json.dumps(record, ensure_ascii=False) for record in self.records(split))
            lines.append(f'"{split}": [\n{rows}\n]' if rows else f'"{split}": []')
        lines += [
            f'"seed": {json.dumps(self.seed)}',
            f'"source": {json.dumps(self.source, ensure_ascii=False)}',
        ]
        # surrogateescape: a file name that is no valid UTF-8 must survive the round trip
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        write_atomically(path, text.encode("utf-8", errors="surrogateescape"))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, allow_leakage: bool = False) -> Datalist:
        """Read and check a JSON file.

        Args:
            path: the file.
            allow_leakage: accept a group that is in two splits.

        Raises:
            DataError: missing, no JSON, wrong keys or types, a label without class, an image or group in two
                splits.
        """
        try:
            content = json.loads(Path(path).read_bytes().decode("utf-8-sig", errors="surrogateescape"))
        except OSError as error:
            raise DataError(
                f"cannot be read: {error.strerror}", where=str(path), remedy="check the path of the datalist"
            ) from error
        except ValueError as error:
            raise DataError(f"is no JSON: {error}", where=str(path), remedy="write the datalist anew") from error
        return cls.from_json(content, where=str(path), allow_leakage=allow_leakage)

    @classmethod
    def from_json(cls, content: Any, *, where: str = "datalist", allow_leakage: bool = False) -> Datalist:
        """Check plain JSON values and make a datalist of them.

        Raises:
            DataError: as for ``load``.
        """
        if not isinstance(content, dict) or "training" not in content or "class_names" not in content:
            raise DataError(
                "is no datalist: it needs class_names and training",
                where=where,
                remedy='give {"class_names": [...], "training": [{"image": ..., "label": 0}], "test": [...]}',
            )
        try:
            names = check_class_names(content["class_names"])
        except (ConfigError, TypeError) as error:
            raise DataError(str(error), where=f"{where}, class_names") from error
        task = content.get("task", _task_of(content))
        if task not in TASKS:
            raise DataError(f"task {task!r} is unknown", where=where, remedy=f"use one of {', '.join(TASKS)}")
        several = task == "multilabel"
        parts = {split: _checked(content.get(split) or [], split, len(names), several, where) for split in SPLITS}
        datalist = cls(names, **parts, seed=content.get("seed"), source=content.get("source") or {}, task=task)
        datalist.check_disjoint(where, allow_leakage=allow_leakage)
        return datalist

    def check_disjoint(self, where: str = "datalist", *, allow_leakage: bool = False) -> None:
        """Refuse an image listed twice and, unless ``allow_leakage``, a group that is in two splits.

        Raises:
            DataError: naming the image or the group and its splits.
        """
        seen: dict[str, SplitName] = {}
        owner: dict[str, SplitName] = {}
        for split in SPLITS:
            for record in self.records(split):
                image, group = record["image"], record.get("group")
                if image in seen:
                    places = split if seen[image] == split else f"{seen[image]} and {split}"
                    raise DataError(f"image {image!r} is listed twice ({places})", where=where, remedy="list it once")
                seen[image] = split
                if not allow_leakage and group is not None and owner.setdefault(group, split) != split:
                    raise DataError(
                        f"group {group!r} is in {owner[group]} and in {split} (image {image!r})",
                        where=where,
                        remedy="put all images of a patient or group into one split, or accept it with "
                        "--allow_leakage true, which makes scores too good",
                    )


def _target(label: Label) -> Any:
    return label if isinstance(label, int) else np.array(label, dtype=np.float32)


def _task_of(content: dict[str, Any]) -> str:
    """The task of a list that does not name it: its first label says."""
    first = next((record for split in SPLITS for record in content.get(split) or []), None)
    return "multilabel" if isinstance(first, dict) and isinstance(first.get("label"), list) else "multiclass"


def _checked_label(label: Any, image: str, classes: int, several: bool, place: str) -> Label:
    if several:
        good = isinstance(label, list) and len(label) == classes
        good = good and all(isinstance(flag, int) and flag in (0, 1) for flag in label)
        what, remedy = "no list of 0 and 1", f"give {classes} of them, one for each of class_names"
    else:
        good = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < classes
        what, remedy = "no class number", f"give a whole number from 0 to {classes - 1}, the place in class_names"
    if not good:
        raise DataError(f"label {label!r} of {image!r} is {what}", where=place, remedy=remedy)
    return [int(flag) for flag in label] if several else int(label)


def _checked(records: Iterable[Any], split: SplitName, classes: int, several: bool, where: str) -> list[Record]:
    checked: list[Record] = []
    for index, record in enumerate(records):
        place = f"{where}, {split}[{index}]"
        if not isinstance(record, dict) or not isinstance(record.get("image"), str) or not record["image"]:
            raise DataError("has no image path", where=place, remedy='write {"image": "path", "label": 0}')
        label = _checked_label(record.get("label"), record["image"], classes, several, place)
        if record["image"].startswith("/") or ".." in record["image"].split("/"):
            raise DataError(
                f"image {record['image']!r} does not lie inside the data set's folder",
                where=place,
                remedy="give paths relative to dataset_dir",
            )
        entry: Record = {"image": record["image"], "label": label}
        if record.get("group") is not None:
            entry["group"] = str(record["group"])
        checked.append(entry)
    return checked
