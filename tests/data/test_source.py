"""Descriptions of public data sets, and what they add to an error."""

from __future__ import annotations

from typing import Any

import pytest

from medmamba_monai.data.source import DataSource
from medmamba_monai.errors import ConfigError, DataError

GIVEN: dict[str, Any] = {
    "name": "Set",
    "address": "https://example.org/set",
    "license": "CC0",
    "splits": "none",
    "tree": ["labels.csv", "images/*.png"],
    "layout_status": "confirmed",
    "layout_source": "its page",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": "CC0"}, "key 'licence' is unknown"),
        ({"tree": "labels.csv"}, "every value is a text, tree a list of texts"),
        ({"tree": ["a", 1]}, "every value is a text"),
        ({"name": 3}, "every value is a text"),
        ({"layout_status": "sure"}, "layout_status 'sure' is unknown.*confirmed, unconfirmed, private"),
    ],
)
def test_a_faulty_description(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataSource.parse(GIVEN | change)


def test_a_missing_key_is_named() -> None:
    for key in GIVEN:
        with pytest.raises(ConfigError, match=f"key '{key}' is missing"):
            DataSource.parse({name: value for name, value in GIVEN.items() if name != key})


def test_an_error_tells_what_is_expected_from_where() -> None:
    text = str(DataSource.parse(GIVEN).explain(DataError("has no rows", where="labels.csv")))
    assert text.splitlines() == [
        "labels.csv: has no rows. Remedy: compare the folder with what is expected.",
        "Set is expected in dataset_dir as:",
        "  labels.csv",
        "  images/*.png",
        "Get it from: https://example.org/set (licence: CC0).",
    ]
    private = DataSource.parse(GIVEN | {"layout_status": "private"}).explain(DataError("x", remedy="do y"))
    assert "Remedy: do y." in str(private)
    assert "This layout is private (its page)" in str(private)
