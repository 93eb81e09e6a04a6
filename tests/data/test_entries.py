"""Names of splits."""

from __future__ import annotations

import pytest

from medmamba_monai.data.entries import parse_split, split_or_none
from medmamba_monai.errors import DataError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "training"),
        ("Training", "training"),
        (" VAL ", "validation"),
        ("valid", "validation"),
        ("validation", "validation"),
        ("test", "test"),
        ("testing", "test"),
    ],
)
def test_synonyms(name: str, split: str) -> None:
    assert parse_split(name, "row 2") == split


def test_other_values_need_a_meaning() -> None:
    assert parse_split("1", "row 2", {"1": "train", "0": "test"}) == "training"
    assert split_or_none("fold1") is None
    with pytest.raises(DataError, match=r"row 2: split 'fold1' is unknown.*split_values"):
        parse_split("fold1", "row 2")
