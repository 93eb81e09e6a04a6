"""Layouts: what a config may say, and where the parts of an unpacked archive are found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medmamba_monai.data.builder import build_datalist
from medmamba_monai.data.folders import list_images
from medmamba_monai.data.layout import Place, locate, parse_layout
from medmamba_monai.data.prepare import prepare_datalist
from medmamba_monai.errors import ConfigError, DataError

if TYPE_CHECKING:
    from .conftest import MakeImages

FOLDERS = {"kind": "folders"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "kind None is not known.*folders, table, npz"),
        ({"kind": "folder"}, "kind 'folder' is not known"),
        ({"kind": "folders", "exclude_file": ["x"]}, "did you mean 'exclude_files'"),
        ({"kind": "npz", "name": "x", "columns": {}}, "key 'columns' is not known for npz"),
        ({"kind": "table"}, "kind 'table' needs the key 'file'"),
        ({"kind": "npz"}, "kind 'npz' needs the key 'name'"),
        ({"kind": "table", "file": ""}, "file must be a text, not ''"),
        ({"kind": "table", "file": "a.csv", "find_by_name": 1}, "find_by_name must be true or false"),
        ({"kind": "table", "file": "a.csv", "columns": {"file": 3}}, "columns must be a dictionary of texts"),
        ({"kind": "folders", "exclude_files": "*_mask*"}, "exclude_files must be a list of texts"),
    ],
)
def test_a_layout_that_makes_no_sense(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_layout(value)


def test_the_rest_of_a_layout_is_passed_on() -> None:
    layout = parse_layout({"kind": "table", "file": "a.csv", "split_values": {"1": "train"}, "find_by_name": True})
    assert (layout.place, layout.options) == ("a.csv", {"split_values": {"1": "train"}, "find_by_name": True})


def test_class_folders_are_found_where_they_are(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "set" / "v1" / "images", {"a": 1, "b": 1})
    make_images(tmp_path / "set" / ".cache", {"a": 1, "b": 1})
    layout = parse_layout(FOLDERS)
    for start in ("set", "set/v1", "set/v1/images"):
        found = locate(layout, tmp_path / start, ["b", "a"])
        assert found == Place("folders", tmp_path / "set" / "v1" / "images")
    with pytest.raises(DataError, match="has no class folder 'a', 'b'"):
        locate(layout, tmp_path, ["a", "b"])  # three folders deep
    with pytest.raises(DataError, match=r"images: has no class folder 'c'"):
        locate(layout, tmp_path / "set", ["a", "b", "c"])
    make_images(tmp_path / "set" / "v2" / "images", {"a": 1, "b": 1})
    with pytest.raises(DataError, match="class folders are in several folders: v1/images, v2/images"):
        locate(layout, tmp_path / "set", ["a", "b"])


def test_class_folders_may_lie_in_split_folders(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "x", {f"{part}/{label}": 2 for part in ("train", "test") for label in "ab"})
    datalist = build_datalist(tmp_path, layout=FOLDERS, class_names=["b", "a"], allow_missing_classes=True)
    assert datalist.class_names == ["b", "a"]
    assert {record["image"] for record in datalist.test} == {f"x/test/{label}/{i}.png" for label in "ab" for i in "01"}


def test_folders_named_otherwise_than_the_classes(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "x", {"1-mel": 4, "2-nev": 4, "notes": 1})
    layout = FOLDERS | {"label_map": {"1-mel": "melanoma", "2-nev": "nevus"}, "exclude_classes": ["notes"]}
    datalist = build_datalist(tmp_path, layout=layout, class_names=["nevus", "melanoma"])
    assert {r["image"].split("/")[1]: r["label"] for r in datalist.training} == {"1-mel": 1, "2-nev": 0}


def test_a_table_and_its_images_are_found_below(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "set" / "images", {"part1": 4, "part2": 0})
    rows = [f"{index};{'ab'[index % 2]};P{index}" for index in range(4)]
    (tmp_path / "set" / "Table.csv").write_text("\n".join(["Name;Kind;Who ", *rows]))
    columns = {"file": "Name", "label": "Kind", "group": "Who"}
    layout = {"kind": "table", "file": "Table.csv", "columns": columns, "find_by_name": True}
    options: dict[str, Any] = {"layout": layout, "fractions": (0.5, 0.5, 0)}
    datalist = build_datalist(tmp_path, **options)
    records = [*datalist.training, *datalist.validation]
    assert {(r["image"], r["group"]) for r in records} == {(f"set/images/part1/{i}.png", f"P{i}") for i in range(4)}
    assert datalist.source["file"] == "Table.csv"
    with pytest.raises(DataError, match=r"the table Other.csv is neither here nor up to 2 folders below"):
        build_datalist(tmp_path, layout=layout | {"file": "Other.csv"})


def test_a_changed_table_is_noticed(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "set", {"a": 12})
    table = tmp_path / "set" / "t.csv"
    rows = ["file,label", *(f"a/{index}.png,{'xy'[index % 2]}" for index in range(12))]
    table.write_text("\n".join(rows))
    options = {"layout": {"kind": "table", "file": "t.csv"}, "output_dir": tmp_path / "out"}
    first = prepare_datalist(tmp_path / "set", **options)
    assert prepare_datalist(tmp_path / "set", **options) == first
    table.write_text("\n".join(rows).replace("a/0.png,x", "a/0.png,y"))
    with pytest.raises(DataError, match=r"'a/0.png' was \('x', None\) and is \('y', None\) now"):
        prepare_datalist(tmp_path / "set", **options)
    # a list of the user's own goes before the layout
    own = tmp_path / "own.csv"
    own.write_text("\n".join(["file,label", *(f"a/{index}.png,{'uv'[index % 2]}" for index in range(12))]))
    used = prepare_datalist(tmp_path / "set", own, layout=options["layout"], output_dir=tmp_path / "other")
    assert used.class_names == ["u", "v"]


def test_a_labels_table_does_not_go_before_the_layout(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "labels.csv").write_text("file,label\na/0.png,x\nb/0.png,y\n")
    assert build_datalist(tmp_path, layout=FOLDERS).class_names == ["a", "b"]


def test_archives(tmp_path: Path) -> None:
    layout = parse_layout({"kind": "npz", "name": "pathmnist"})
    for name in ("pathmnist_64.npz", "bloodmnist.npz", "pathmnistx.npz"):
        (tmp_path / name).touch()
    assert locate(layout, tmp_path, None).path == tmp_path / "pathmnist_64.npz"
    (tmp_path / "pathmnist.npz").touch()
    with pytest.raises(DataError, match=r"holds several sizes: pathmnist.npz, pathmnist_64.npz"):
        locate(layout, tmp_path, None)
    assert locate(layout, tmp_path / "pathmnist.npz", None).path == tmp_path / "pathmnist.npz"
    with pytest.raises(DataError, match=r"bloodmnist.npz: holds no pathmnist.npz"):
        locate(layout, tmp_path / "bloodmnist.npz", None)
    with pytest.raises(DataError, match="is no folder"):
        locate(parse_layout(FOLDERS), tmp_path / "bloodmnist.npz", ["a", "b"])


def test_what_a_layout_leaves_out_is_not_predicted(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"a": 1, "masks": 2})
    assert len(list_images(tmp_path, layout=FOLDERS)) == 3
    assert [item["file"] for item in list_images(tmp_path, layout=FOLDERS | {"exclude_files": ["masks/*"]})] == [
        "a/0.png"
    ]


def test_of_several_archives_the_named_one_is_predicted(tmp_path: Path, make_images: MakeImages) -> None:
    def write(name: str) -> None:
        np.savez(tmp_path / name, train_images=np.zeros((2, 4, 4), np.uint8), train_labels=np.array([0, 1]))

    layout = {"kind": "npz", "name": "bloodmnist"}
    write("mine.npz")
    assert len(list_images(tmp_path, layout=layout)) == 2, "an archive of one's own"
    write("pathmnist.npz")
    with pytest.raises(DataError, match=r"pathmnist.npz: is another data set than bloodmnist"):
        list_images(tmp_path, layout=layout)
    with pytest.raises(DataError, match=r"pathmnist.npz: is another data set than bloodmnist"):
        list_images(tmp_path / "pathmnist.npz", layout=layout)
    write("bloodmnist_64.npz")
    make_images(tmp_path, {"new": 1})
    assert [item["file"] for item in list_images(tmp_path, layout=layout)] == [
        *("new/0.png", "bloodmnist_64.npz#train/0", "bloodmnist_64.npz#train/1"),
    ]
    assert len(list_images(tmp_path)) == 7
