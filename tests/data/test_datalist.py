"""The datalist and its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.data.datalist import Datalist
from medmamba_monai.errors import DataError


def _content(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "class_names": ["a", "b"],
        "training": [{"image": "a/1.png", "label": 0, "group": "P1"}, {"image": "b/ü 空 #%.png", "label": 1}],
        "validation": [{"image": "a/2.png", "label": 0, "group": "P2"}],
        "test": [],
        "seed": 3,
        "source": {"kind": "folder"},
    }
    return content | changes


def test_round_trip_keeps_everything_and_the_digest(tmp_path: Path) -> None:
    datalist = Datalist.from_json(_content())
    datalist.save(tmp_path / "out" / "datalist.json")
    again = Datalist.load(tmp_path / "out" / "datalist.json")
    assert again == datalist
    assert again.digest == datalist.digest
    assert json.loads((tmp_path / "out" / "datalist.json").read_text("utf-8")) == _content()
    again.training[0]["label"] = 1
    assert again.digest != datalist.digest


def test_a_file_name_that_is_no_utf8_survives(tmp_path: Path) -> None:
    odd = b"a/\xff.png".decode("utf-8", errors="surrogateescape")
    Datalist(["a", "b"], training=[{"image": odd, "label": 0}]).save(tmp_path / "d.json")
    assert Datalist.load(tmp_path / "d.json").training[0]["image"] == odd


def test_items_labels_counts() -> None:
    datalist = Datalist.from_json(_content())
    assert datalist.items("train", "/set") == [
        {"image": "/set/a/1.png", "label": 0, "file": "a/1.png", "group": "P1"},
        {"image": "/set/b/ü 空 #%.png", "label": 1, "file": "b/ü 空 #%.png"},
    ]
    assert datalist.labels("val") == [0]
    assert datalist.counts("training") == [1, 1]
    with pytest.raises(DataError, match="the datalist has no test images"):
        datalist.items("test", "/set")
    with pytest.raises(DataError, match="split 'fold1' is unknown"):
        datalist.labels("fold1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["a", "a"]}, "class_names.*'a' is there twice"),
        ({"class_names": None}, "class_names"),
        ({"training": [{"image": "x.png", "label": 2}]}, r"training\[0\]: label 2 of 'x.png' is no class number"),
        ({"training": [{"image": "x.png", "label": True}]}, "label True"),
        ({"training": [{"image": "x.png", "label": "a"}]}, "label 'a'"),
        ({"training": [{"label": 1}]}, r"training\[0\]: has no image path"),
        ({"training": [{"image": "/x.png", "label": 1}]}, "does not lie inside"),
        ({"training": [{"image": "../x.png", "label": 1}]}, "does not lie inside"),
        ({"test": [{"image": "a/1.png", "label": 0}]}, r"'a/1.png' is listed twice \(training and test\)"),
        ({"test": [{"image": "a/3.png", "label": 0, "group": "P1"}]}, "group 'P1' is in training and in test"),
        ({"test": [{"image": "a/3.png", "label": 0, "group": "P2"}]}, "group 'P2' is in validation and in test"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Datalist.from_json(_content(**changes), where="d.json")


def test_leakage_can_be_allowed_but_not_an_image_listed_twice() -> None:
    shared_group = [{"image": "a/3.png", "label": 0, "group": "P1"}]
    assert Datalist.from_json(_content(test=shared_group), allow_leakage=True).test == shared_group
    with pytest.raises(DataError, match="listed twice"):
        Datalist.from_json(_content(test=[{"image": "a/1.png", "label": 0}]), allow_leakage=True)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"training": []}', "\xff"])
def test_files_that_are_no_datalist(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.json").write_text(text, "latin-1")
    with pytest.raises(DataError, match=r"d\.json: is no"):
        Datalist.load(tmp_path / "d.json")
    with pytest.raises(DataError, match="cannot be read"):
        Datalist.load(tmp_path / "nowhere.json")


def _findings(**changes: Any) -> dict[str, Any]:
    records = [{"image": f"{i}.png", "label": label} for i, label in enumerate([[0, 1], [1, 1], [0, 0]])]
    return {"class_names": ["a", "b"], "training": records[:2], "test": records[2:]} | changes


def test_lists_of_several_findings(tmp_path: Path) -> None:
    datalist = Datalist.from_json(_findings())
    assert datalist.task == "multilabel"
    assert datalist.labels("training") == [[0, 1], [1, 1]]
    assert datalist.counts("training") == [1, 2]
    assert [datalist.names_of(record) for record in datalist.training] == [("b",), ("a", "b")]
    label = datalist.items("test", "/set")[0]["label"]
    assert (label.tolist(), str(label.dtype)) == ([0.0, 0.0], "float32")
    datalist.save(tmp_path / "d.json")
    assert json.loads((tmp_path / "d.json").read_text())["task"] == "multilabel"
    assert Datalist.load(tmp_path / "d.json") == datalist
    assert Datalist.load(tmp_path / "d.json").digest == datalist.digest


def test_a_list_of_one_class_an_image_is_written_as_before(tmp_path: Path) -> None:
    Datalist.from_json(_content()).save(tmp_path / "d.json")
    assert "task" not in json.loads((tmp_path / "d.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": [{"image": "x.png", "label": 1}]}, r"test\[0\]: label 1 of 'x.png' is no list of 0 and 1.*give 2"),
        ({"test": [{"image": "x.png", "label": [1]}]}, r"label \[1\]"),
        ({"test": [{"image": "x.png", "label": [0, 2]}]}, r"label \[0, 2\]"),
        ({"test": [{"image": "x.png", "label": [0, 0.5]}]}, r"label \[0, 0.5\]"),
        ({"task": "multiclass"}, r"training\[0\]: label \[0, 1\] of '0.png' is no class number"),
        ({"task": "multi"}, "task 'multi' is unknown.*multiclass, multilabel"),
    ],
)
def test_lists_of_findings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Datalist.from_json(_findings(**changes))
