"""Class-per-folder data sets and lists of images for prediction."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from medmamba_monai.data.folders import folder_entries, group_by_pattern, list_images
from medmamba_monai.errors import ConfigError, DataError

if TYPE_CHECKING:
    from .conftest import MakeImages


def test_class_folders_may_be_deep(tmp_path: Path, make_images: MakeImages) -> None:
    entries = folder_entries(make_images(tmp_path, {"a/p1": 1, "a/p2": 1, "b": 1}))
    assert [(entry.file, entry.label, entry.split) for entry in entries] == [
        ("a/p1/0.png", "a", None),
        ("a/p2/0.png", "a", None),
        ("b/0.png", "b", None),
    ]


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "testing")])
def test_split_folders(tmp_path: Path, make_images: MakeImages, names: tuple[str, ...]) -> None:
    make_images(tmp_path, {f"{split}/{label}": 1 for split in names for label in "ab"})
    entries = folder_entries(tmp_path)
    assert {(entry.label, entry.split) for entry in entries} == {
        (label, split) for label in "ab" for split in ("training", "validation", "test")
    }


def test_a_class_called_test_is_a_class_without_a_train_folder(tmp_path: Path, make_images: MakeImages) -> None:
    entries = folder_entries(make_images(tmp_path, {"test": 1, "control": 1}))
    assert {entry.label for entry in entries} == {"test", "control"}


def test_errors_name_the_folder(tmp_path: Path, make_images: MakeImages) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none: no images found"):
        folder_entries(tmp_path / "none")
    root = make_images(tmp_path / "set", {"a": 1, "b": 1})
    (root / "c").mkdir()
    with pytest.raises(DataError, match=r"set/c: this class folder has no image"):
        folder_entries(root)
    (root / "c").rmdir()
    shutil.copy(root / "a" / "0.png", root / "stray.png")
    with pytest.raises(DataError, match=r"stray.png: an image lies outside the class folders"):
        folder_entries(root)


def test_split_folders_with_strays(tmp_path: Path, make_images: MakeImages) -> None:
    root = make_images(tmp_path, {"train/a": 1, "train/b": 1, "test/a": 1, "extra/a": 1})
    with pytest.raises(DataError, match="outside the split folders"):
        folder_entries(root)
    assert len(folder_entries(root, exclude_files=["extra/*"])) == 3


def test_masks_are_refused(tmp_path: Path, make_images: MakeImages) -> None:
    root = make_images(tmp_path, {"a": 2, "b": 1})
    shutil.copy(root / "a" / "0.png", root / "a" / "0_mask.png")
    with pytest.raises(DataError, match=r"a/0_mask.png: .*segmentation mask.*\*_mask\*"):
        folder_entries(root)
    assert len(folder_entries(root, exclude_files=["*_mask*"])) == 3


def test_group_pattern() -> None:
    assert group_by_pattern("a/CNV-12-3.png", None) is None
    assert group_by_pattern("a/CNV-12-3.png", r"[A-Z]+-\d+") == "CNV-12"
    assert group_by_pattern("a/IM-7.png", r"person(\d+)|IM-(\d+)") == "7"
    with pytest.raises(DataError, match="x.png: group_pattern .* does not match"):
        group_by_pattern("x.png", r"(\d+)")
    with pytest.raises(ConfigError, match="no regular expression"):
        group_by_pattern("x.png", "(")


def test_list_images(tmp_path: Path, make_images: MakeImages) -> None:
    root = make_images(tmp_path / "ünï 空 #%", {"b": 1, "a/10": 1, "a/9": 1})
    items = list_images(root)
    assert [item["file"] for item in items] == ["a/9/0.png", "a/10/0.png", "b/0.png"]
    assert all(Path(item["image"]).is_absolute() and Path(item["image"]).is_file() for item in items)
    assert list_images(items[0]["image"]) == [{"image": items[0]["image"], "file": "0.png"}]
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images found"):
        list_images(tmp_path / "empty")


def test_series_are_items_of_their_class(tmp_path: Path) -> None:
    for name in ("sick/P1/1.dcm", "sick/P1/2.dcm", "well/P2/T1/1.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "well" / "x.nii").touch()
    entries = folder_entries(tmp_path, dicom_series=True)
    assert [(entry.file, entry.label) for entry in entries] == [
        ("sick/P1", "sick"),
        ("well/P2/T1", "well"),
        ("well/x.nii", "well"),
    ]
    alone = list_images(tmp_path / "sick" / "P1", dicom_series=True)
    assert alone == [{"image": str(tmp_path / "sick" / "P1"), "file": "P1"}]
    (tmp_path / "well" / "3.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(DataError, match=r"well: holds DICOM slices where folders of series are expected.*own"):
        folder_entries(tmp_path, dicom_series=True)


def test_list_images_of_an_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train_images=np.zeros((2, 4, 4), np.uint8), test_images=np.zeros((1, 4, 4), np.uint8))
    expected = ["x.npz#train/0", "x.npz#train/1", "x.npz#test/0"]
    assert [item["file"] for item in list_images(tmp_path)] == expected
    assert [item["file"] for item in list_images(tmp_path / "x.npz")] == expected
