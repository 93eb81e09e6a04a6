"""The download of MedMNIST archives, from a local folder in place of the network."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import pytest

from medmamba_monai.data.medmnist_fetch import SIZES, _address, _info, archive_name, fetch_medmnist, size_for
from medmamba_monai.data.medmnist_table import MEDMNIST_MD5
from medmamba_monai.errors import ConfigError, DataError

CONTENT = b"an archive" * 1000


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A medmnist package whose info.py names a file of this folder; its import would fail."""
    (tmp_path / "served.npz").write_bytes(CONTENT)
    folder = tmp_path / "site" / "medmnist"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    table = {"bloodmnist": {"url_64": (tmp_path / "served.npz").as_uri(), "url": (tmp_path / "gone.npz").as_uri()}}
    (folder / "info.py").write_text(f"import os\nINFO = {table!r}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    digest = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(MEDMNIST_MD5, "bloodmnist_64.npz", digest)
    return folder


def test_sizes_and_names() -> None:
    assert [size_for(size) for size in ([28], [32, 64], [65], [224, 224], [512])] == [28, 64, 128, 224, 224]
    assert archive_name("octmnist", 28) == "octmnist.npz"
    assert {archive_name("octmnist", size) for size in (28, 64, 128, 224)} <= set(MEDMNIST_MD5)
    with pytest.raises(ConfigError, match="there is no size 100"):
        fetch_medmnist("octmnist", ".", 100)


def test_the_file_appears_whole_and_alone(package: Path, tmp_path: Path) -> None:
    target = fetch_medmnist("bloodmnist", tmp_path / "a" / "b", 64, progress=False)
    assert target == tmp_path / "a" / "b" / "bloodmnist_64.npz"
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert "medmnist" not in sys.modules
    (tmp_path / "served.npz").unlink()
    target.write_bytes(b"mine")
    assert fetch_medmnist("bloodmnist", str(target.parent), 64).read_bytes() == b"mine", "what is there stays"


def test_another_file_than_the_official_one_is_not_kept(package: Path, tmp_path: Path) -> None:
    (tmp_path / "served.npz").write_bytes(CONTENT[:-1])
    with pytest.raises(
        DataError, match=r"bloodmnist_64.npz: what came from file:.* has the MD5 sum .*nothing was kept"
    ):
        fetch_medmnist("bloodmnist", tmp_path / "out", 64, progress=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failed_download_says_why_and_leaves_nothing(package: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bloodmnist.npz: cannot be fetched from file:.*gone.npz.*by other means"):
        fetch_medmnist("bloodmnist", tmp_path / "out", 28, progress=False)
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch_medmnist("bloodmnist", tmp_path / "file", 64, progress=False)


def test_an_address_that_the_package_does_not_know(package: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no 64-pixel archive of 'pathmnist'"):
        fetch_medmnist("pathmnist", tmp_path, 64)
    for content in ("x = 1", "INFO = {", "INFO = dict(a=1)"):
        (package / "info.py").write_text(content)
        with pytest.raises(DataError, match=r"info.py: (has no table|cannot be read)"):
            fetch_medmnist("bloodmnist", tmp_path, 64)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'medmamba_monai\[medmnist\]'"):
        fetch_medmnist("bloodmnist", tmp_path / "out", 64)
    assert not (tmp_path / "out").exists()


def test_the_installed_package_names_every_archive() -> None:
    """Where the extra is installed, its table is as this module expects it."""
    if importlib.util.find_spec("medmnist") is None:
        pytest.skip("the extra medmnist is not installed")
    names = [name for name in _info() if not name.endswith("3d")]
    assert len(names) == 12
    assert all(_address(name, size).startswith("https://") for name in names for size in SIZES)
