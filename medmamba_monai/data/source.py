"""What is known of a public data set: its name, where to get it, under which licence, and what it looks like.

Imports errors only. It turns "file missing" into "this is what the archive holds, and there it comes from".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from medmamba_monai.errors import ConfigError, DataError

__all__ = ["STATUSES", "DataSource"]

STATUSES = ("confirmed", "unconfirmed", "private")
"""Of a layout: read in the publisher's documentation; taken from users of the archive; there is no public archive."""


@dataclass(frozen=True)
class DataSource:
    """A data set as its publisher describes it.

    Attributes:
        name: of the data set.
        address: where to get it.
        license: under which conditions.
        splits: the parts the publisher defines, or that there are none.
        tree: what ``dataset_dir`` holds once the archive is unpacked, a line each.
        layout_status: one of ``STATUSES``.
        layout_source: where the layout is documented.
        notes: what a user has to know of the data, such as a leak between published parts.
    """

    name: str
    address: str
    license: str
    splits: str
    tree: tuple[str, ...]
    layout_status: str
    layout_source: str
    notes: str = ""

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> DataSource:
        """Check the description as it stands in a config.

        Raises:
            ConfigError: a key is missing or unknown, or a value is of the wrong type.
        """
        known = {item.name for item in fields(cls)}
        needed = {item.name for item in fields(cls) if item.default is MISSING}
        for kind, names in (("unknown", set(value) - known), ("missing", needed - set(value))):
            if names:
                raise ConfigError(f"key {sorted(names)[0]!r} is {kind}", where="data_source")
        texts = {key: item for key, item in value.items() if key != "tree"}
        tree = value["tree"]
        if not isinstance(tree, (list, tuple)) or not all(isinstance(t, str) for t in (*texts.values(), *tree)):
            raise ConfigError("every value is a text, tree a list of texts", where="data_source")
        if value["layout_status"] not in STATUSES:
            remedy = f"use one of {', '.join(STATUSES)}"
            raise ConfigError(
                f"layout_status {value['layout_status']!r} is unknown", where="data_source", remedy=remedy
            )
        return cls(**texts, tree=tuple(tree))

    def explain(self, problem: DataError) -> DataError:
        """Add to a problem with the folder what was expected there and where it comes from.

        Example:
            >>> source = DataSource("Set", "https://a.org", "CC0", "none", ("a/*.png",), "unconfirmed", "users")
            >>> print(source.explain(DataError("is empty", where="x", remedy="look")))
            x: is empty. Remedy: look.
            Set is expected in dataset_dir as:
              a/*.png
            Get it from: https://a.org (licence: CC0).
            This layout is unconfirmed (users); where yours differs, describe it in a labels.csv and give --datalist.
        """
        lines = [f"{self.name} is expected in dataset_dir as:", *(f"  {line}" for line in self.tree)]
        lines.append(f"Get it from: {self.address} (licence: {self.license}).")
        if self.layout_status != "confirmed":
            remedy = "where yours differs, describe it in a labels.csv and give --datalist"
            lines.append(f"This layout is {self.layout_status} ({self.layout_source}); {remedy}.")
        remedy = (problem.remedy or "compare the folder with what is expected").rstrip(".")
        return DataError(problem.what, where=problem.where, remedy="\n".join([f"{remedy}.", *lines]))
