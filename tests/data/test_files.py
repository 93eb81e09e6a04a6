"""Which files count as images, their order, and how names in tables are found."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from medmamba_monai.data.files import FileIndex, is_image_file, natural_key, scan_images
from medmamba_monai.errors import DataError

if TYPE_CHECKING:
    from .conftest import MakeImages


def test_natural_order() -> None:
    names = ["img10", "Img9", "img9", "b", "a", "10", "9", "é"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "b", "Img9", "img9", "img10", "é"]


def test_scan_leaves_out_hidden_and_other_files(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"a": 11, ".hidden": 1, "__MACOSX": 1, "deep/er": 1})
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "a" / "Thumbs.db").write_text("x")
    (tmp_path / "a" / ".1.png").write_text("x")
    found = [relative for relative, _ in scan_images(tmp_path)]
    assert found == [*(f"a/{index}.png" for index in range(11)), "deep/er/0.png"]
    assert [name for name, _ in scan_images(tmp_path, exclude_files=["a/*"])] == ["deep/er/0.png"]


def test_dicom_without_suffix_counts(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "1.2.840.3").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "README").write_text("no image")
    assert is_image_file(tmp_path / "IM0001")
    assert is_image_file(tmp_path / "1.2.840.3")
    assert not is_image_file(tmp_path / "README")


def test_series_folder_is_one_item(tmp_path: Path) -> None:
    for name in ("P1/IM1", "P1/IM2", "P2/x.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
    assert [name for name, _ in scan_images(tmp_path, dicom_series=True)] == ["P1", "P2"]
    assert [name for name, _ in scan_images(tmp_path)] == ["P1/IM1", "P1/IM2", "P2/x.dcm"]


def test_series_beside_multiframe_objects_and_niftis(tmp_path: Path) -> None:
    for name in ("series/1.dcm", "series/2.dcm", "enhanced/1.dcm", "enhanced/2.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        item = Dataset()
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = MRImageStorage
        item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID = generate_uid()
        if name.startswith("enhanced"):
            item.NumberOfFrames = 4
        dcmwrite(tmp_path / name, item, enforce_file_format=True)
    (tmp_path / "series" / "0.nii.gz").touch()
    found = [name for name, _ in scan_images(tmp_path, dicom_series=True)]
    assert found == ["enhanced/1.dcm", "enhanced/2.dcm", "series", "series/0.nii.gz"]
    assert (".", tmp_path / "series") in scan_images(tmp_path / "series", dicom_series=True)


def test_symbolic_links_are_followed_but_not_in_circles(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "elsewhere", {"x": 1})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    assert [name for name, _ in scan_images(tmp_path / "set")] == ["linked/x/0.png"]


def test_index_finds_other_spellings(tmp_path: Path, make_images: MakeImages) -> None:
    decomposed = unicodedata.normalize("NFD", "häuser")
    make_images(tmp_path, {decomposed: 1, "b": 1})
    index = FileIndex(tmp_path)
    assert index.find("b\\0.png", "row 2") == "b/0.png"
    assert index.find(str(tmp_path / "b" / "0.png"), "row 2") == "b/0.png"
    assert index.find(unicodedata.normalize("NFC", "häuser/0.png"), "row 2") == f"{decomposed}/0.png"


def test_index_by_name(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"part1": 2, "part2": 1})
    index = FileIndex(tmp_path, by_name=True)
    assert index.find("1", "row 2") == "part1/1.png"
    assert index.find("1.png", "row 2") == "part1/1.png"
    with pytest.raises(DataError, match="could be any of"):
        index.find("0", "row 2")
    with pytest.raises(DataError, match="does not exist"):
        FileIndex(tmp_path).find("1", "row 2")


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/passwd"])
def test_paths_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="row 7: .*outside the data set folder"):
        FileIndex(tmp_path).find(name, "row 7")


def test_missing_file_names_the_nearest(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"benign": 1})
    with pytest.raises(DataError, match=r"row 3: .*'bening/0.png' does not exist.*did you mean 'benign/0.png'"):
        FileIndex(tmp_path).find("bening/0.png", "row 3")
