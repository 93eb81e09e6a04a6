"""Canonical JSON, digests and atomic writing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from medmamba_monai.data.storage import canonical_json, preprocessing_digest, sha256_of, write_atomically
from medmamba_monai.errors import ConfigError, DataError


def test_digest_is_sha256_of_sorted_json() -> None:
    value = {"b": [1, 2.5, None, True], "a": "é"}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert sha256_of(value) == hashlib.sha256(text.encode()).hexdigest()


def test_preprocessing_digest_ignores_key_order_only() -> None:
    one = preprocessing_digest({"size": [64, 64], "color": "grey"})
    assert one == preprocessing_digest({"color": "grey", "size": [64, 64]})
    assert one != preprocessing_digest({"color": "grey", "size": [64, 65]})
    assert one != preprocessing_digest({"color": "grey", "size": [64.0, 64]})


@pytest.mark.parametrize("value", [{"x": float("nan")}, {"x": object()}, {(1, 2): 3}])
def test_values_without_json_form_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="no canonical JSON form"):
        canonical_json(value)


def test_write_replaces_whole_file_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x.json"
    write_atomically(target, b"first, and longer")
    write_atomically(target, b"second")
    assert target.read_bytes() == b"second"
    assert [item.name for item in target.parent.iterdir()] == ["x.json"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.json"
    write_atomically(target, b"old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DataError, match=r"x\.json: cannot be written: No space left"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
