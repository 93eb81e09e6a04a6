"""prepare_datalist: one list for training, evaluation and inference of a run."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.data.builder import build_datalist
from medmamba_monai.data.datalist import Datalist
from medmamba_monai.data.prepare import prepare_datalist
from medmamba_monai.errors import DataError

if TYPE_CHECKING:
    from .conftest import MakeImages


PARTS = ("training", "validation", "test")


@pytest.fixture
def dataset(tmp_path: Path, make_images: MakeImages) -> Path:
    return make_images(tmp_path / "set", {"a": 10, "b": 10})


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_built_and_written_once_never_into_the_data_set(dataset: Path, tmp_path: Path) -> None:
    before = _tree(dataset)
    first = prepare_datalist(dataset, output_dir=tmp_path / "out", seed=7)
    stamp = (tmp_path / "out" / "datalist.json").stat().st_mtime_ns
    assert first == build_datalist(dataset, seed=7)
    # another seed later must not reshuffle what was trained on
    assert prepare_datalist(str(dataset), output_dir=str(tmp_path / "out"), seed=8) == first
    assert (tmp_path / "out" / "datalist.json").stat().st_mtime_ns == stamp
    assert _tree(dataset) == before
    for inside in (dataset, dataset / "eval"):
        with pytest.raises(DataError, match="lies inside the data set's folder"):
            prepare_datalist(dataset, output_dir=inside)


def test_without_output_dir_nothing_is_written(dataset: Path, tmp_path: Path) -> None:
    prepare_datalist(dataset)
    assert [item.name for item in tmp_path.iterdir()] == ["set"]


def test_changed_data_set_is_refused(dataset: Path, tmp_path: Path) -> None:
    prepare_datalist(dataset, output_dir=tmp_path / "out")
    extra = dataset / "a" / "new.png"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(extra)
    with pytest.raises(DataError, match=r"0 files are gone and 1 are new, for example 'a/new.png' is new"):
        prepare_datalist(dataset, output_dir=tmp_path / "out")
    extra.unlink()
    (dataset / "a" / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 files are gone .*'a/3.png' is gone"):
        prepare_datalist(dataset, output_dir=tmp_path / "out")


def test_changed_label_is_refused(dataset: Path, tmp_path: Path) -> None:
    rows = [f"{label}/{index}.png,{label}" for label in "ab" for index in range(10)]
    (dataset / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    prepare_datalist(dataset, output_dir=tmp_path / "out")
    rows[0] = "a/0.png,b"
    (dataset / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    with pytest.raises(DataError, match=r"'a/0.png' was \('a', None\) and is \('b', None\) now"):
        prepare_datalist(dataset, output_dir=tmp_path / "out")


def test_given_json_wins_and_is_copied(dataset: Path, tmp_path: Path) -> None:
    own = build_datalist(dataset, seed=99)
    own.save(tmp_path / "own.json")
    used = prepare_datalist(dataset, tmp_path / "own.json", output_dir=tmp_path / "out")
    assert [used.training, used.validation, used.test] == [own.training, own.validation, own.test]
    # later calls without it find the same splits
    assert prepare_datalist(dataset, "", output_dir=tmp_path / "out") == used
    assert prepare_datalist(dataset, tmp_path / "own.json", output_dir=tmp_path / "out") == used
    build_datalist(dataset, seed=100).save(tmp_path / "other.json")
    with pytest.raises(DataError, match="belongs to other data: it differs from"):
        prepare_datalist(dataset, tmp_path / "other.json", output_dir=tmp_path / "out")


def test_given_csv(dataset: Path, tmp_path: Path) -> None:
    rows = [f"{label}/{index}.png,{label},P{index}" for label in "ab" for index in range(9)]
    (tmp_path / "own.csv").write_text("file,label,patient_id\n" + "\n".join(rows))
    used = prepare_datalist(dataset, tmp_path / "own.csv", output_dir=tmp_path / "out", seed=5)
    assert sum(len(used.records(split)) for split in ("training", "validation", "test")) == 18
    assert prepare_datalist(dataset, tmp_path / "own.csv", output_dir=tmp_path / "out", seed=6) == used
    # and without the table: same splits, from the output folder
    assert prepare_datalist(dataset, output_dir=tmp_path / "out") == used
    assert "own.csv" in json.dumps(used.source)
    assert str(tmp_path) not in json.dumps(used.source)


def test_class_names_must_agree(dataset: Path, tmp_path: Path) -> None:
    assert prepare_datalist(dataset, output_dir=tmp_path / "out", class_names=["b", "a"]).class_names == ["b", "a"]
    with pytest.raises(DataError, match=r"has the classes \['b', 'a'\], class_names says \['a', 'b'\]"):
        prepare_datalist(dataset, output_dir=tmp_path / "out", class_names=["a", "b"])
    assert prepare_datalist(dataset, output_dir=tmp_path / "out").class_names == ["b", "a"]


def test_missing_images_of_a_given_list(dataset: Path, tmp_path: Path) -> None:
    records = [
        {"image": "a/0.png", "label": 0},
        {"image": "a/gone.png", "label": 0},
        {"image": "x.npz#train/0", "label": 1},
    ]
    content = {"class_names": ["a", "b"], "training": records}
    (tmp_path / "own.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"own.json: 2 of its images are not in .*'a/gone.png'"):
        prepare_datalist(dataset, tmp_path / "own.json", output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_members_of_archives_are_checked(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    labels = np.array([0, 1] * 4)
    arrays = {}
    for part in ("train", "val", "test"):
        arrays |= {f"{part}_images": np.zeros((8, 2, 2), np.uint8), f"{part}_labels": labels}
    np.savez(tmp_path / "set" / "x.npz", **arrays)
    used = prepare_datalist(tmp_path / "set", output_dir=tmp_path / "out")
    assert prepare_datalist(tmp_path / "set" / "x.npz", output_dir=tmp_path / "out") == used
    used.test[0]["image"] = "x.npz#test/8"
    used.save(tmp_path / "own.json")
    with pytest.raises(DataError, match=r"1 of its images are not in .*'x.npz#test/8'"):
        prepare_datalist(tmp_path / "set", tmp_path / "own.json")


def test_leakage_is_refused_unless_allowed(dataset: Path, tmp_path: Path) -> None:
    parts = {
        split: [{"image": f"{label}/{index}.png", "label": "ab".index(label), "group": "P"} for label in "ab"]
        for index, split in enumerate(("training", "validation"))
    }
    (tmp_path / "own.json").write_text(json.dumps({"class_names": ["a", "b"]} | parts))
    with pytest.raises(DataError, match="group 'P' is in training and in validation"):
        prepare_datalist(dataset, tmp_path / "own.json", tmp_path / "out")
    used = prepare_datalist(dataset, tmp_path / "own.json", tmp_path / "out", allow_leakage=True)
    assert prepare_datalist(dataset, output_dir=tmp_path / "out", allow_leakage=True) == used
    with pytest.raises(DataError, match="group 'P'"):
        prepare_datalist(dataset, output_dir=tmp_path / "out")


def test_many_at_once_agree(dataset: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(lambda _: prepare_datalist(dataset, output_dir=tmp_path / "out"), range(16)))
    assert all(item == lists[0] for item in lists)
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["datalist.json"]
    assert Datalist.load(tmp_path / "out" / "datalist.json") == lists[0]


def test_copies_are_kept_together_and_found_once(dataset: Path, tmp_path: Path) -> None:
    for index in range(10):  # larger pictures than the others, whose looks are compared
        pixels = np.random.default_rng(index).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(dataset / "a" / f"{index}.png")
        Image.fromarray(pixels[::-1]).save(dataset / "a" / f"flipped_{index}.png")
    used = prepare_datalist(dataset, output_dir=tmp_path / "out", keep_copies_together=True)
    assert len(used.source["copies_kept_together"]) == 10
    where = {record["image"]: part for part in PARTS for record in used.records(part)}
    assert all(where[f"a/{index}.png"] == where[f"a/flipped_{index}.png"] for index in range(10))
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == ["datalist.json", "duplicates.json"]
    assert prepare_datalist(dataset, output_dir=tmp_path / "out") == used
    plain = prepare_datalist(dataset, output_dir=tmp_path / "plain")
    where = {record["image"]: part for part in PARTS for record in plain.records(part)}
    assert any(where[f"a/{index}.png"] != where[f"a/flipped_{index}.png"] for index in range(10))


def test_the_task_must_agree(dataset: Path, tmp_path: Path) -> None:
    rows = [f"{label}/{index}.png,{('x', 'y', 'x|y')[index % 3]}" for label in "ab" for index in range(10)]
    (dataset / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    used = prepare_datalist(dataset, output_dir=tmp_path / "out", task="multilabel")
    assert prepare_datalist(dataset, output_dir=tmp_path / "out", task="multilabel") == used
    with pytest.raises(DataError, match="is a multilabel list, task says multiclass.*--task multilabel"):
        prepare_datalist(dataset, output_dir=tmp_path / "out")
    used.save(tmp_path / "own.json")
    with pytest.raises(DataError, match="own.json: is a multilabel list"):
        prepare_datalist(dataset, tmp_path / "own.json")
    rows[0] = "a/0.png,y|x"
    (dataset / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    with pytest.raises(DataError, match=r"'a/0.png' was \('x', None\) and is \('x\|y', None\) now"):
        prepare_datalist(dataset, output_dir=tmp_path / "out", task="multilabel")


def test_what_uncertain_labels_mean_stays_with_the_list(dataset: Path, tmp_path: Path) -> None:
    rows = [
        f"{label}/{index}.png,{index % 2},{('1', '0', '-1', '')[index % 4]}" for label in "ab" for index in range(10)
    ]
    (dataset / "labels.csv").write_text("file,x,y\n" + "\n".join(rows))
    with pytest.raises(DataError, match="column 'y' holds -1"):
        prepare_datalist(dataset, output_dir=tmp_path / "out", task="multilabel")
    used = prepare_datalist(dataset, output_dir=tmp_path / "out", task="multilabel", uncertain="positive")
    assert prepare_datalist(dataset, output_dir=tmp_path / "out", task="multilabel") == used
    with pytest.raises(DataError, match="belongs to other data"):
        prepare_datalist(dataset, output_dir=tmp_path / "out", task="multilabel", uncertain="negative")


def test_where_leakage_is_allowed_copies_are_dealt_out_one_by_one(tmp_path: Path, make_images: MakeImages) -> None:
    """The way out for pictures that only look alike, all of one class here."""
    dataset = make_images(tmp_path / "alike", {"a": 6, "b": 6})
    for index in range(1, 6):
        (dataset / "a" / f"{index}.png").write_bytes((dataset / "a" / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"class 'a' has 1 .* no copies of one another.*--allow_leakage true"):
        prepare_datalist(dataset, output_dir=tmp_path / "out", keep_copies_together=True)
    used = prepare_datalist(dataset, output_dir=tmp_path / "out", keep_copies_together=True, allow_leakage=True)
    assert all(used.counts(part)[0] for part in PARTS)
    assert "copies_kept_together" not in used.source
