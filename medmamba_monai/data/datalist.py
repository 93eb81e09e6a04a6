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
from typing import Any, TypedDict

from medmamba_monai.data.entries import SPLITS, SplitName, parse_split
from medmamba_monai.data.files import dataset_root
from medmamba_monai.data.labels import check_class_names
from medmamba_monai.data.storage import sha256_of, write_atomically
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["Datalist", "Record"]


class _Labelled(TypedDict):
    image: str
    label: int


class Record(_Labelled, total=False):
    """One image of a datalist: relative path, class number, and the patient or other group where known."""

    group: str


@dataclass
class Datalist:
    """Images, class numbers and splits of one data set.

    Attributes:
        class_names: name of class 0, 1, ….
        training: records of the training part; "image" is relative to the data set's folder.
        validation: records of the validation part.
        test: records of the test part.
        seed: seed of the split, or None where the source gave the splits.
        source: what the list was made from, as plain JSON values.

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

    def records(self, split: str) -> list[Record]:
        """Records of one split, which may be empty; synonyms such as "train" and "val" are understood."""
        records: list[Record] = getattr(self, parse_split(split, "datalist"))
        return records

    def labels(self, split: str) -> list[int]:
        """Class numbers of one split, in order."""
        return [record["label"] for record in self.records(split)]

    def counts(self, split: str) -> list[int]:
        """Number of images of each class in one split."""
        counter = Counter(self.labels(split))
        return [counter[label] for label in range(len(self.class_names))]

    def items(self, split: str, dataset_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
        """What a data set is made of.

        {"image": absolute path, "label": number, "file": relative path, ["group"]}.

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
            {"image": os.path.join(root, r["image"]), "label": r["label"], "file": r["image"]}  # noqa: PTH118 - speed
            | ({"group": r["group"]} if "group" in r else {})
            for r in records
        ]

    def to_json(self) -> dict[str, Any]:
        """The content as plain JSON values, in the order of the file."""
        content: dict[str, Any] = {"class_names": list(self.class_names)}
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
        lines = [f'"class_names": {json.dumps(self.class_names, ensure_ascii=False)}']
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
        parts = {split: _checked(content.get(split) or [], split, len(names), where) for split in SPLITS}
        datalist = cls(names, **parts, seed=content.get("seed"), source=content.get("source") or {})
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
                        remedy="put all images of a patient or group into one split",
                    )


def _checked(records: Iterable[Any], split: SplitName, classes: int, where: str) -> list[Record]:
    checked: list[Record] = []
    for index, record in enumerate(records):
        place = f"{where}, {split}[{index}]"
        if not isinstance(record, dict) or not isinstance(record.get("image"), str) or not record["image"]:
            raise DataError("has no image path", where=place, remedy='write {"image": "path", "label": 0}')
        label = record.get("label")
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
            raise DataError(
                f"label {label!r} of {record['image']!r} is no class number",
                where=place,
                remedy=f"give a whole number from 0 to {classes - 1}, the place in class_names",
            )
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
