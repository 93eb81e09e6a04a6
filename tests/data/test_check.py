"""The data check end to end on planted faults and on real packs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.data.check import check_datalist
from medmamba_monai.data.datalist import Datalist

SPLITS = ("training", "validation", "test")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twelve smooth pictures a class, and a table that splits them by hand."""
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    rows = ["file,label,group,split"]
    for label in "ab":
        (root / label).mkdir(parents=True)
        for index in range(12):
            picture = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            picture.resize((96, 80), Image.Resampling.BICUBIC).save(root / label / f"{index}.png")
            rows.append(f"{label}/{index}.png,{label},{label}{index},{('train', 'val', 'test')[index % 3]}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def _edit(root: Path, old: str, new: str) -> None:
    table = root / "labels.csv"
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, new))


def test_clean_data_set(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check_datalist(dataset, output_dir=tmp_path / "out", progress=False)
    assert report.ok and not report.odd and not report.duplicates
    assert report.images == 24
    assert report.class_counts == {label: dict.fromkeys(SPLITS, 4) for label in "ab"}
    assert report.sizes["smallest"] == report.sizes["largest"] == [80, 96]
    assert (report.formats, report.channels) == ({"png": 24}, {"3": 24})
    assert json.loads((tmp_path / "out" / "data_report.json").read_text())["ok"] is True
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.size == (8 * 96, 2 * 110)
    assert capsys.readouterr().err == ""
    check_datalist(dataset)
    assert "24/24" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 3])
def test_planted_faults_are_all_found(dataset: Path, workers: int) -> None:
    shutil.copy(dataset / "a" / "0.png", dataset / "a" / "1.png")  # training -> validation, same bytes
    mirrored = Image.open(dataset / "b" / "0.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((140, 120))
    mirrored.save(dataset / "b" / "2.png")  # training -> test
    Image.open(dataset / "a" / "3.png").convert("RGB").save(dataset / "a" / "6.jpg", quality=80)
    shutil.move(dataset / "a" / "6.jpg", dataset / "a" / "6.png")  # within training: no leak
    (dataset / "b" / "5.png").write_bytes(b"")
    (dataset / "b" / "7.png").write_bytes((dataset / "b" / "7.png").read_bytes()[:200])
    Image.new("L", (50, 50), 7).save(dataset / "a" / "9.png")
    Image.new("RGB", (300, 20), "red").save(dataset / "a" / "10.png")
    _edit(dataset, "a/4.png,a,a4,val", "a/4.png,a,a3,val")  # patient a3 also has a/3.png in training
    report = check_datalist(dataset, progress=False, workers=workers)
    assert not report.ok
    assert {item["file"] for item in report.unreadable} == {"b/5.png", "b/7.png"}
    assert report.groups_in_two_splits == [{"group": "a3", "splits": ["training", "validation"]}]
    found = {(pair.files, pair.kind, pair in report.leaks) for pair in report.duplicates}
    assert found == {
        (("a/0.png", "a/1.png"), "exact", True),
        (("b/0.png", "b/2.png"), "near", True),
        (("a/3.png", "a/6.png"), "near", False),
    }
    odd = {(item["file"], item["what"]) for item in report.odd}
    assert {
        ("a/9.png", "all pixels are equal"),
        ("a/9.png", "1 channels, most images have 3"),
        ("a/10.png", "small: 20 x 300 pixels"),
        ("a/10.png", "long: 20 x 300 pixels"),
        ("a/10.png", "all pixels are equal"),
    } == odd


def test_a_leak_is_not_hidden_by_a_copy_in_the_same_split(dataset: Path) -> None:
    for index in (3, 6, 4):  # two more copies in training, then one in validation
        shutil.copy(dataset / "a" / "0.png", dataset / "a" / f"{index}.png")
    report = check_datalist(dataset, progress=False)
    assert [(pair.files, pair.splits) for pair in report.leaks] == [
        (("a/0.png", "a/4.png"), ("training", "validation"))
    ]
    assert len(report.duplicates) == 3


def test_datalist_objects_and_files(dataset: Path, tmp_path: Path) -> None:
    content = {
        "class_names": ["a", "b"],
        "training": [{"image": "a/0.png", "label": 0, "group": "P"}],
        "test": [{"image": "b/0.png", "label": 1, "group": "P"}],
    }
    (tmp_path / "d.json").write_text(json.dumps(content))
    report = check_datalist(dataset, tmp_path / "d.json", progress=False)
    assert report.groups_in_two_splits == [{"group": "P", "splits": ["training", "test"]}]
    del content["test"][0]["group"]
    assert check_datalist(dataset, Datalist.from_json(content), progress=False).ok


def test_reading_options_are_passed_on(shared: Path) -> None:
    folder = shared / "data" / "dicom"
    records = [{"image": f"series_torchio/IMG00{index:02d}.dcm", "label": index % 2} for index in range(1, 18)]
    datalist = Datalist.from_json({"class_names": ["a", "b"], "training": records})
    report = check_datalist(folder, datalist, progress=False, reading={"window": (100000, 10)})
    assert sum(item["what"] == "all pixels are equal" for item in report.odd) == 17
    assert not check_datalist(folder, datalist, progress=False).odd


def test_known_copies_in_the_real_packs(shared: Path) -> None:
    folder = shared / "data" / "fundus"
    files = [str(path.relative_to(folder)) for path in sorted(folder.rglob("Patient2[89]*.jpg"))]
    files += [str(path.relative_to(folder)) for path in sorted(folder.rglob("Patient300*.jpg"))]
    names = sorted({file.split("/")[0] for file in files})
    records = [{"image": file, "label": names.index(file.split("/")[0])} for file in files]
    assert len(records) == 42
    report = check_datalist(folder, Datalist(names, training=records), progress=False)
    # the archive holds both eyes of patient 299 a second time, as patient 300 with another grade
    assert {frozenset(pair.files) for pair in report.conflicts} == {
        frozenset(("moderate/Patient299_L.jpg", "severe/Patient300_L.jpg")),
        frozenset(("moderate/Patient299_R.jpg", "severe/Patient300_R.jpg")),
    }


def test_splits_are_drawn_as_in_training(dataset: Path) -> None:
    (dataset / "labels.csv").unlink()
    for index in range(6):
        shutil.copy(dataset / "a" / f"{index}.png", dataset / "a" / f"copy_{index}.png")
    report = check_datalist(dataset, progress=False)
    assert len(report.duplicates) == 6
    assert report.ok and not report.leaks


def test_blank_pictures_are_odd_and_no_copies(dataset: Path) -> None:
    for index in (0, 1, 2):
        Image.new("L", (50, 50), 7).save(dataset / "a" / f"{index}.png")
    report = check_datalist(dataset, progress=False)
    assert report.ok and not report.duplicates
    assert sum(item["what"] == "all pixels are equal" for item in report.odd) == 3


def test_several_findings_an_image(dataset: Path, tmp_path: Path) -> None:
    cells = ("x", "y", "x|y", "No Finding")
    rows = [f"{label}/{index}.png,{cells[index % 4]}" for label in "ab" for index in range(12)]
    (dataset / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    shutil.copy(dataset / "a" / "0.png", dataset / "a" / "2.png")
    report = check_datalist(dataset, output_dir=tmp_path / "out", progress=False, task="multilabel")
    assert {name: sum(parts.values()) for name, parts in report.class_counts.items()} == {"x": 12, "y": 12}
    assert [(pair.files, pair.labels) for pair in report.conflicts] == [(("a/0.png", "a/2.png"), ("x", "x|y"))]
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.size == (8 * 96, 3 * 110), "x, y and no finding"
