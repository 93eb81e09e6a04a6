"""The zip: the same bytes every time, one folder, nothing but the release."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from medmamba_monai.bundling.pack import pack
from medmamba_monai.bundling.release import Release, lock_differences
from medmamba_monai.errors import ConfigError


def test_packing_twice_gives_the_same_bytes(bundle: Path, weights: Path, tmp_path: Path) -> None:
    release = Release(weights=weights, vendor=True)
    first = pack(bundle, tmp_path / "a", release)
    for file in bundle.rglob("*"):
        os.utime(file, (1e9, 1e9))
    elsewhere = shutil.copytree(bundle, tmp_path / "elsewhere" / bundle.name)
    again = pack(elsewhere, tmp_path / "b", release)
    assert first.file.name == f"{bundle.name}_v0.1.0.zip"
    assert first.sha256 == again.sha256
    assert first.file.read_bytes() == again.file.read_bytes()
    assert [file.name for file in (tmp_path / "a").iterdir()] == [first.file.name]


def test_the_zip_holds_the_release_in_one_folder(bundle: Path, tmp_path: Path) -> None:
    for path in ("eval/predictions.csv", "data/benign/ann.png"):
        (bundle / path).parent.mkdir(parents=True)
        (bundle / path).write_text("private")
    packed = pack(bundle, tmp_path / "deep" / "output", Release())
    with zipfile.ZipFile(packed.file) as archive:
        assert archive.namelist() == [f"{bundle.name}/{path}" for path in packed.files]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert packed.left_out == ["data", "eval"]
    shutil.unpack_archive(packed.file, tmp_path / "unpacked")
    root = tmp_path / "unpacked" / bundle.name
    assert lock_differences(root) == []
    assert json.loads((root / "lock.json").read_text())["files"].keys() == set(packed.files) - {"lock.json"}
    assert (root / "docs" / "data_license.txt").read_text() == (bundle / "docs" / "data_license.txt").read_text()


def test_an_output_that_cannot_be_written_is_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file.*cannot be written"):
        pack(bundle, tmp_path / "file", Release())
