"""Merging agrees with MONAI where both accept, and refuses what MONAI would add in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.bundling.merge import REQUIRED, merge, missing, nearest, read_json
from medmamba_monai.errors import ConfigError

BASE = {
    "epochs": 5,
    "net": {"_target_": "a.B", "dims": [1, 2]},
    "train": {"handlers": [{"_target_": "x.Y", "lr": 0.1}], "inferer": None},
}


@pytest.mark.parametrize(
    "overlay",
    [
        {"epochs": 7},
        {"net": {"_target_": "c.D"}},
        {"+net": {"depth": 3, "dims": [9]}},
        {"train::handlers::0::lr": 0.5},
        {"train#inferer": {"_target_": "i.J"}},
        {"+train::handlers": [{"_target_": "z.Z"}]},
        {"net::dims::1": 8, "epochs": None},
    ],
)
def test_merge_equals_monai(overlay: dict[str, Any], tmp_path: Path) -> None:
    from monai.bundle import ConfigParser

    files = []
    for name, content in (("base", BASE), ("overlay", overlay)):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(content))
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    expected = {key: value for key, value in parser.get().items() if key != "_meta_"}
    assert merge(BASE, overlay, "overlay") == expected


def test_merge_leaves_its_inputs_alone() -> None:
    before = json.dumps(BASE)
    merged = merge(BASE, {"+net": {"depth": 3}, "+train::handlers": [1]}, "overlay")
    merged["net"]["dims"].append(4)
    assert json.dumps(BASE) == before


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ({"epoch": 7}, ["'epoch'", "did you mean 'epochs'"]),
        ({"+epoch": [7]}, ["'+epoch'", "epochs"]),
        ({"train::handler::0": 1}, ["train::handler::0", "did you mean 'handlers'"]),
        ({"train::handlers::3": 1}, ["train::handlers::3", "1 items"]),
        ({"epochs::x": 1}, ["epochs::x"]),
        ({"+epochs": {"a": 1}}, ["+epochs", "int in the base, dict here"]),
        ({"+net": [1]}, ["dict in the base, list here"]),
    ],
)
def test_a_key_the_base_does_not_know_is_named_with_its_file(overlay: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        merge(BASE, overlay, "modalities/x.json")
    assert all(word in str(caught.value) for word in [*words, "modalities/x.json"])


def test_missing_finds_every_marker_and_nothing_else() -> None:
    config = {
        "a": REQUIRED + "colour",
        "b": [1, {"c": REQUIRED + "size"}],
        "d": "text with !required: inside",
    }
    assert list(missing(config)) == [("a", "colour"), ("b::1::c", "size")]


def test_nearest_gives_up_on_what_looks_like_nothing() -> None:
    assert nearest("zzzz", ["epochs", "device"]) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "JSON list"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is written twice"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_by_name(text: str | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_json(file)
    assert str(file) in str(caught.value)
