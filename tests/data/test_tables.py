"""CSV label tables: what is understood, and every refusal with its row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medmamba_monai.data.tables import findings_entries, read_table, table_entries
from medmamba_monai.errors import DataError

if TYPE_CHECKING:
    from .conftest import MakeImages


@pytest.fixture
def root(tmp_path: Path, make_images: MakeImages) -> Path:
    return make_images(tmp_path, {"i": 3})


def _write(root: Path, text: str, encoding: str = "utf-8") -> Path:
    path = root / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_delimiters_encodings_and_blanks(root: Path, delimiter: str, encoding: str, newline: str) -> None:
    rows = [["File ", "label", "patient_id"], [" i/0.png", "ö a ", "P1"], [], ["i/1.png", "b", " P2 "]]
    path = _write(root, newline.join(delimiter.join(row) for row in rows) + newline, encoding)
    entries = table_entries(path, root)
    assert [(e.file, e.label, e.group, e.where) for e in entries] == [
        ("i/0.png", "ö a", "P1", "labels.csv, row 2"),
        ("i/1.png", "b", "P2", "labels.csv, row 4"),
    ]


def test_quoted_cells_and_trailing_delimiters(root: Path) -> None:
    entries = table_entries(_write(root, 'file,label\n"i/0.png","normal, benign"\ni/1.png,b,,\n'), root)
    assert [entry.label for entry in entries] == ["normal, benign", "b"]


def test_named_columns_and_split_values(root: Path) -> None:
    path = _write(root, "Image_name;Patient_num;Plane;Train\n0;7;Brain;1\n1;8;Thorax;0\n")
    entries = table_entries(
        path,
        root,
        columns={"file": "Image_name", "label": "Plane", "group": "patient_num", "split": "Train"},
        split_values={"1": "train", "0": "test"},
        find_by_name=True,
    )
    assert [(e.file, e.label, e.group, e.split) for e in entries] == [
        ("i/0.png", "Brain", "7", "training"),
        ("i/1.png", "Thorax", "8", "test"),
    ]


def test_group_pattern_and_excluded_rows(root: Path) -> None:
    path = _write(root, "file,label\ni/0.png,a\ni/gone.png,b\n")
    entries = table_entries(path, root, exclude_files=["*gone*"], group_pattern=r"/(\d)")
    assert [(e.file, e.group) for e in entries] == [("i/0.png", "0")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\ni/0.png,a\ni/9.png,b\n", r"labels.csv, row 3: file 'i/9.png' does not exist"),
        ("file,label\ni/0.png,a\ni/0.png,b\n", r"row 3: file 'i/0.png' is there twice, first in labels.csv, row 2"),
        ("file,label\ni/0.png,\n", r"row 2: the label cell is empty"),
        ("file,label,split\ni/0.png,a,\n", r"row 2: the split cell is empty"),
        ("file,label,split\ni/0.png,a,dev\n", r"row 2: split 'dev' is unknown"),
        ("file,label\ni/0.png,a,b\n", r"row 2: has 3 cells under 2 columns"),
        ("file,labels\ni/0.png,a\n", r"has no column 'label' \(columns: file, labels\)"),
        ("file,file,label\ni/0.png,x,a\n", r"column 'file' twice"),
        ("file,label\n", r"has no rows"),
        ("", r"has no rows"),
        ("file,label\n/etc/hosts,a\n", r"row 2: .*outside the data set folder"),
    ],
)
def test_refusals_name_the_row(root: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table_entries(_write(root, text), root)


def test_other_encodings_and_missing_table(root: Path) -> None:
    with pytest.raises(DataError, match="row 3: is not UTF-8"):
        table_entries(_write(root, "file,label\ni/0.png,a\ni/1.png,ä\n", "latin-1"), root)
    with pytest.raises(DataError, match=r"nowhere.csv: cannot be read"):
        read_table(root / "nowhere.csv")
    with pytest.raises(DataError, match="columns has the key 'patient'"):
        table_entries(_write(root, "file,label\ni/0.png,a\n"), root, columns={"patient": "x"})


def test_findings_in_one_cell_as_in_chestxray14(root: Path) -> None:
    path = _write(root, "Image Index,Finding Labels,Patient ID\ni/0.png,Mass|Nodule,7\ni/1.png,No Finding,7\n")
    entries, names = findings_entries(path, root)
    assert [(e.file, e.label, e.findings, e.group) for e in entries] == [
        ("i/0.png", "Mass|Nodule", ("Mass", "Nodule"), "7"),
        ("i/1.png", "", (), "7"),
    ]
    assert names is None


def test_findings_in_columns_as_in_chexpert(root: Path) -> None:
    text = "Path,Sex,Mass,Effusion\ni/0.png,F,1.0,-1.0\ni/1.png,M,,0.0\n"
    given = {"class_names": ["Effusion", "Mass"], "uncertain": "positive"}
    entries, names = findings_entries(_write(root, text), root, **given)  # type: ignore[arg-type]
    assert names == ["Effusion", "Mass"]
    assert [entry.findings for entry in entries] == [("Effusion", "Mass"), ()]
    with pytest.raises(DataError, match=r"labels.csv, row 2: column 'Effusion' holds -1.0 \(uncertain\)"):
        findings_entries(_write(root, text), root, class_names=["Effusion", "Mass"])
    with pytest.raises(DataError, match="columns that are not of 0 and 1 alone: Sex"):
        findings_entries(_write(root, text), root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\ni/0.png,\n", "row 2: the label cell is empty"),
        ("file,label\ni/0.png,No Finding|Mass\n", "row 2: .*alone"),
        ("file,A,B\ni/0.png,0,x\ni/1.png,1,1\n", "not of 0 and 1 alone: B"),
        ("file,A\ni/9.png,1\n", "row 2: file 'i/9.png' does not exist"),
    ],
)
def test_findings_that_cannot_be_read(root: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        findings_entries(_write(root, text), root)
