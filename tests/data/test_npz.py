"""MedMNIST archives: members, headers that lie, damaged files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medmamba_monai.data.npz import load_array, member_names, npz_headers, read_member, split_member
from medmamba_monai.errors import DataError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "x.npz", train_images=images, extra=images[:2])
    return tmp_path / "x.npz"


def test_members_equal_numpy(archive: Path) -> None:
    oracle = np.load(archive)["train_images"]
    assert member_names(archive) == [f"train/{index}" for index in range(5)]
    for index in range(5):
        np.testing.assert_array_equal(read_member(archive, "train", index), oracle[index])
    np.testing.assert_array_equal(read_member(archive, "extra", 1), oracle[1])
    assert npz_headers(archive)["train_images"] == ((5, 6, 7, 3), np.dtype(np.uint8))


def test_a_rewritten_archive_is_read_anew(archive: Path) -> None:
    assert read_member(archive, "train", 0).any()
    np.savez(archive, train_images=np.zeros((1, 2, 2), np.uint8))
    assert not read_member(archive, "train", 0).any()


@pytest.mark.parametrize("path", ["x.png", "a#b.png", "x.npz", "x.npz#train", "x.npz#train/x", "x.npz#/3"])
def test_other_paths_are_no_members(path: str) -> None:
    assert split_member(path) is None


def test_absent_member(archive: Path) -> None:
    with pytest.raises(DataError, match="has no image 5"):
        read_member(archive, "train", 5)
    with pytest.raises(DataError, match=r"has no array 'val' \(arrays: train_images, extra\)"):
        read_member(archive, "val", 0)
    with pytest.raises(DataError, match="does not exist"):
        read_member(archive.with_name("y.npz"), "train", 0)


def test_no_medmnist_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="holds no MedMNIST images"):
        member_names(tmp_path / "x.npz")


def test_damaged_archives(archive: Path) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="no readable npz archive"):
        npz_headers(archive)
    damaged = bytearray(content)
    damaged[200:230] = bytes(255 - value for value in damaged[200:230])
    archive.write_bytes(damaged)
    with pytest.raises(DataError, match=r"x\.npz"):
        load_array(archive, "train_images")


def test_a_header_that_claims_more_than_is_there(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as out:
        out.writestr("train_images.npy", header.getvalue() + b"\0" * 100)
    with pytest.raises(DataError, match=r"'train_images.npy' claims uint8 \(1000000, 1000000\)"):
        read_member(tmp_path / "x.npz", "train", 0)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train_images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="claims object"):
        npz_headers(tmp_path / "x.npz")
