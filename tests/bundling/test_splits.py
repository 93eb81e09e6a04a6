"""Splits of a run: prepared once and late, told apart by their fingerprint, refused where they would leak."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.bundling.splits import Splits
from medmamba_monai.errors import CheckpointError, DataError
from medmamba_monai.networks.model_info import ModelInfo


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for index in range(10):
            Image.new("L", (8, 8), index).save(folder / name / f"{index}.png")
    return folder


def splits(images: Path, output: str = "out", **options: object) -> Splits:
    return Splits(str(images), output_dir=str(images.parent / output), **options)  # type: ignore[arg-type]


def test_nothing_is_read_before_it_is_asked_for(images: Path) -> None:
    made = splits(images)
    assert not (images.parent / "out").exists()
    assert made.class_names == ["a", "b"]
    assert (images.parent / "out" / "datalist.json").is_file()
    assert len(made.items("training")) == len(made.labels("training")) > 0


def test_class_names_come_from_the_model_where_there_is_no_data(images: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(DataError, match="--dataset_dir"):
        _ = splits(missing, ckpt_dir=str(tmp_path)).class_names
    ModelInfo(["x", "y"], 1, 2, [32, 32], {}, "digest").save(tmp_path)
    made = splits(missing, ckpt_dir=str(tmp_path))
    assert made.class_names == ["x", "y"]
    with pytest.raises(DataError, match="missing"):
        made.items("training")
    assert splits(images, ckpt_dir=str(tmp_path)).class_names == ["a", "b"]


def test_the_fingerprint_tells_parts_from_files(images: Path) -> None:
    one, same, dealt_anew = splits(images), splits(images, "second"), splits(images, "third", seed=1)
    assert one.fingerprint == same.fingerprint
    assert dealt_anew.fingerprint["files"] == one.fingerprint["files"]
    assert dealt_anew.fingerprint["parts"] != one.fingerprint["parts"]
    Image.new("L", (8, 8)).save(images / "a" / "new.png")
    other = splits(images, "fourth")
    assert other.fingerprint["files"] != one.fingerprint["files"]
    for harmless in (same, other):
        harmless.check_same_parts(one.fingerprint)
    one.check_same_parts(None)
    with pytest.raises(CheckpointError, match="other parts"):
        dealt_anew.check_same_parts(one.fingerprint)


def test_an_empty_part_names_the_list(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    file.write_text(
        json.dumps(
            {
                "class_names": ["a", "b"],
                "training": [{"image": "a/0.png", "label": 0}, {"image": "b/0.png", "label": 1}],
                "validation": [],
                "test": [],
            }
        )
    )
    made = splits(images, datalist=str(file))
    with pytest.raises(DataError, match=r"list\.json: the validation part"):
        made.items("validation")


@pytest.fixture
def leaking(images: Path) -> Path:
    """A list whose test part has a copy of a training image."""
    rng = np.random.default_rng(0)
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(images / name)
    (images / "a" / "1.png").write_bytes((images / "a" / "0.png").read_bytes())
    parts = {"training": ["a/0", "b/0"], "validation": ["a/2"], "test": ["a/1", "b/1"]}
    records = {p: [{"image": f"{n}.png", "label": "ab".index(n[0])} for n in names] for p, names in parts.items()}
    file = images.parent / "leaking.json"
    file.write_text(json.dumps({"class_names": ["a", "b"], **records}))
    return file


def test_leakage_is_refused_or_remarked(images: Path, leaking: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = splits(images, datalist=str(leaking))
    with pytest.raises(DataError, match=r"leaking\.json: 1 pairs of images .* a/0.png \(training\) = a/1.png \(test\)"):
        made.refuse_leakage()
    allowed = splits(images, datalist=str(leaking), allow_leakage=True)
    allowed.refuse_leakage()
    assert "scores will be too good" in caplog.text
    assert allowed.remarks["leakage"]["exact_copies"] == 1
    caplog.clear()
    clean = splits(images, "clean")
    clean.refuse_leakage()
    assert clean.remarks == {}
    assert clean.datalist.source["copies_kept_together"] == [["a/0.png", "a/1.png"]]
    assert caplog.text == ""


def test_items_of_a_part_have_the_same_keys_whoever_has_a_group(images: Path, leaking: Path) -> None:
    content = json.loads(leaking.read_text())
    content["training"][0]["group"] = "P1"
    leaking.write_text(json.dumps(content))
    items = splits(images, datalist=str(leaking)).items("training")
    assert [sorted(item) for item in items] == [["file", "image", "label"]] * 2


def test_several_labels_an_image(images: Path) -> None:
    rows = [f"{name}/{index}.png,{('x', 'y', 'x|y')[index % 3]}" for name in "ab" for index in range(10)]
    (images / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    made = splits(images, task="multilabel")
    assert made.class_names == ["x", "y"]
    assert [item["label"].tolist() for item in made.items("training")] == made.labels("training")


def test_whether_training_had_the_same_files_is_told(images: Path) -> None:
    here = splits(images)
    assert here.same_files(here.fingerprint) == {"same_files": True}
    assert here.same_files({"files": "others", "parts": ""}) == {"same_files": False}
    assert here.same_files(None) == {"same_files": None}
