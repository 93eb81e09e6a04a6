"""build_datalist: sources, classes and splits together."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from medmamba_monai.data.builder import build_datalist
from medmamba_monai.data.duplicates import Duplicates, find_duplicates
from medmamba_monai.errors import ConfigError, DataError

if TYPE_CHECKING:
    from .conftest import MakeImages


PARTS = ("training", "validation", "test")


def _groups(datalist: object, split: str) -> set[str]:
    return {record["group"] for record in datalist.records(split)}  # type: ignore[attr-defined]


def test_class_folders(tmp_path: Path, make_images: MakeImages) -> None:
    datalist = build_datalist(make_images(tmp_path, {"b": 20, "a": 10}), seed=4)
    assert datalist.class_names == ["a", "b"]
    assert datalist.counts("training") == [7, 14]
    assert np.add(datalist.counts("validation"), datalist.counts("test")).tolist() == [3, 6]
    assert datalist.seed == 4
    assert datalist.source == {"kind": "folder", "splits": "drawn", "fractions": [0.7, 0.15, 0.15]}
    assert datalist.digest == build_datalist(tmp_path, seed=4).digest
    assert datalist.digest != build_datalist(tmp_path, seed=5).digest


def test_given_splits_are_kept(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {f"{s}/{label}": 2 for s in ("train", "valid", "testing") for label in "ab"})
    datalist = build_datalist(tmp_path)
    assert datalist.seed is None
    assert {record["image"].split("/")[0] for record in datalist.validation} == {"valid"}
    assert datalist.counts("test") == [2, 2]


def test_validation_comes_out_of_training_where_only_test_is_given(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"train/a": 17, "train/b": 17, "test/a": 3, "test/b": 3})
    datalist = build_datalist(tmp_path, fractions=(0.7, 0.15, 0.15))
    assert datalist.counts("validation") == [3, 3]
    assert datalist.counts("training") == [14, 14]
    assert datalist.counts("test") == [3, 3]
    assert all(record["image"].startswith("test/") for record in datalist.test)


def test_csv_in_the_folder_is_found_and_groups_hold(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"i": 24})
    rows = [f"i/{index}.png,{'ab'[index % 2]},P{index // 2}" for index in range(24)]
    (tmp_path / "labels.csv").write_text("file,label,patient_id\n" + "\n".join(rows))
    datalist = build_datalist(tmp_path)
    train, val, test = (_groups(datalist, split) for split in ("training", "validation", "test"))
    assert not train & val and not train & test and not val & test
    assert len(train | val | test) == 12
    assert datalist.source["kind"] == "csv"
    with pytest.raises(DataError, match="has no column 'eye'"):
        build_datalist(tmp_path, group_column="eye")


def test_a_group_in_two_given_splits_is_refused(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"i": 4})
    (tmp_path / "own.csv").write_text(
        "file,label,group,split\ni/0.png,a,P1,train\ni/1.png,b,P2,train\ni/2.png,a,P2,val\ni/3.png,b,P4,test\n"
    )
    with pytest.raises(DataError, match=r"own.csv: group 'P2' is in training and in validation \(image 'i/2.png'\)"):
        build_datalist(tmp_path, csv="own.csv")
    assert build_datalist(tmp_path, csv="own.csv", allow_leakage=True).counts("training") == [1, 1]


def test_small_and_missing_classes(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"a": 10, "b": 10, "rare": 2})
    with pytest.raises(DataError, match=r"class 'rare' has 2 images or patients.*exclude_classes=\['rare'\]"):
        build_datalist(tmp_path)
    assert build_datalist(tmp_path, exclude_classes=["rare"]).class_names == ["a", "b"]
    assert build_datalist(tmp_path, allow_missing_classes=True).counts("training")[2] >= 1
    with pytest.raises(DataError, match="'ghost' is declared"):
        build_datalist(tmp_path, class_names=["a", "b", "rare", "ghost"])


def test_training_must_have_every_class(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 2, "val/c": 2})
    with pytest.raises(DataError, match="class 'c' has no training image"):
        build_datalist(tmp_path)
    assert build_datalist(tmp_path, allow_missing_classes=True).counts("training") == [2, 2, 0]


def test_label_map_renames_and_merges(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"0": 5, "1": 5, "2": 5})
    datalist = build_datalist(tmp_path, label_map={"0": "no_dr", "1": "dr", "2": "dr"}, class_names=["no_dr", "dr"])
    assert sum(sum(datalist.labels(split)) for split in ("training", "validation", "test")) == 10


def test_sources_that_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        build_datalist(tmp_path / "nowhere")
    for name in ("x.npz", "y.npz"):
        np.savez(tmp_path / name, a=np.zeros(1))
    with pytest.raises(DataError, match="holds several npz files: x.npz, y.npz"):
        build_datalist(tmp_path)
    with pytest.raises(DataError, match="label table does not exist"):
        build_datalist(tmp_path, csv="nowhere.csv")
    (tmp_path / "z.txt").write_text("")
    with pytest.raises(DataError, match="is no folder"):
        build_datalist(tmp_path / "z.txt")


def test_fractions_are_checked(tmp_path: Path, make_images: MakeImages) -> None:
    with pytest.raises(ConfigError, match="no shares"):
        build_datalist(make_images(tmp_path, {"a": 3, "b": 3}), fractions=(1, 1, 1))


PACKS = {
    "ultrasound": {},
    "chest_xray": {},
    "dermatoscopy": {},
    "fundus": {},
    "endoscopy": {},
    "histopathology": {},
    "blood_cell": {"exclude_classes": ["basophil"]},
    "retinal_oct": {},
    "abdominal_ct": {},
}


@pytest.mark.parametrize("pack", PACKS)
def test_real_packs_split_by_group_and_share(shared: Path, pack: str) -> None:
    datalist = build_datalist(shared / "data" / pack, seed=1, **PACKS[pack])
    counts = np.array([datalist.counts(split) for split in ("training", "validation", "test")])
    assert counts.min() >= 1
    error = np.abs(counts / counts.sum(axis=0) - np.array([[0.7], [0.15], [0.15]])) * counts.sum(axis=0)
    assert error.max() <= 2.5
    if "group" in datalist.training[0]:
        train, val, test = (_groups(datalist, split) for split in ("training", "validation", "test"))
        assert not train & val and not train & test and not val & test


def _findings_table(root: Path, make_images: MakeImages) -> Path:
    make_images(root, {"i": 30})
    cells = ("No Finding", "Mass", "Mass|Nodule", "Nodule", "No Finding")
    rows = [f"i/{index}.png,{cells[index % 5]},P{index // 2}" for index in range(30)]
    (root / "labels.csv").write_text("file,label,patient_id\n" + "\n".join(rows))
    return root


def test_several_findings_an_image(tmp_path: Path, make_images: MakeImages) -> None:
    datalist = build_datalist(_findings_table(tmp_path, make_images), task="multilabel")
    assert (datalist.task, datalist.class_names) == ("multilabel", ["Mass", "Nodule"])
    records = {record["image"]: record["label"] for part in PARTS for record in datalist.records(part)}
    assert [records[f"i/{index}.png"] for index in range(5)] == [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
    groups = [_groups(datalist, part) for part in PARTS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 15
    assert all(min(datalist.counts(part)) > 0 for part in PARTS)
    without = build_datalist(tmp_path, task="multilabel", class_names=["Mass", "x"], label_map={"Nodule": "x"})
    assert without.class_names == ["Mass", "x"]
    with pytest.raises(DataError, match=r"label 'Mass\|Nodule' names several classes"):
        build_datalist(tmp_path)


def test_columns_are_classes_in_their_order_even_where_no_image_has_one(
    tmp_path: Path, make_images: MakeImages
) -> None:
    make_images(tmp_path, {"i": 12})
    rows = [f"i/{index}.png,{index % 2},{int(index % 3 == 0)},0" for index in range(12)]
    (tmp_path / "labels.csv").write_text("file,Z,A,never\n" + "\n".join(rows))
    with pytest.raises(DataError, match="class 'never' is declared and no image has it"):
        build_datalist(tmp_path, task="multilabel")
    datalist = build_datalist(tmp_path, task="multilabel", exclude_classes=["A"], allow_missing_classes=True)
    assert datalist.class_names == ["Z", "never"]


def test_findings_need_a_table_and_a_task_that_exists(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(DataError, match="class folders give each image one class.*labels.csv"):
        build_datalist(tmp_path, task="multilabel")
    with pytest.raises(ConfigError, match="task='multi'"):
        build_datalist(tmp_path, task="multi")


def test_copies_are_looked_for_only_where_splits_are_drawn(tmp_path: Path, make_images: MakeImages) -> None:
    asked: list[list[str]] = []

    def find(files: list[str]) -> Duplicates:
        asked.append(list(files))
        return Duplicates(len(files), exact=[["a/0.png", "a/1.png", "a/2.png"]])

    make_images(tmp_path / "given", {f"{part}/{label}": 2 for part in ("train", "val", "test") for label in "ab"})
    build_datalist(tmp_path / "given", find_copies=find)
    assert asked == []
    make_images(tmp_path / "drawn", {"a": 12, "b": 12})
    datalist = build_datalist(tmp_path / "drawn", find_copies=find)
    assert len(asked[0]) == 24
    assert datalist.source["copies_kept_together"] == [["a/0.png", "a/1.png", "a/2.png"]]
    where = {record["image"]: part for part in PARTS for record in datalist.records(part)}
    assert len({where[f"a/{index}.png"] for index in range(3)}) == 1
    assert (
        "copies_kept_together" not in build_datalist(tmp_path / "drawn", find_copies=lambda files: Duplicates()).source
    )


def test_real_copies_come_to_lie_in_one_split(shared: Path) -> None:
    root = shared / "data" / "ultrasound"
    datalist = build_datalist(root, find_copies=partial(find_duplicates, root))
    where = {record["image"]: part for part in PARTS for record in datalist.records(part)}
    together = datalist.source["copies_kept_together"]
    assert sorted(map(len, together)) == [2, 4]
    assert all(len({where[file] for file in files}) == 1 for files in together)
