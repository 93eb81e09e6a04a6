"""Bundles on a small part of real images of their modality; needs the shared packs."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .conftest import REPOSITORY, BundleCopy

PER_CLASS = 12
PACKS: dict[str, tuple[str, list[str]]] = {
    "abdominal_ct": ("abdominal_ct", ["abdomenct", "chestct", "headct"]),
    "blood_microscopy": ("blood_cell", ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]),
    "breast_ultrasound": ("ultrasound", ["benign", "malignant", "normal"]),
    "chest_xray": ("chest_xray", ["no_finding", "pneumonia"]),
    "colon_histopathology": ("histopathology", ["epithelial", "fibroblast", "inflammatory", "others"]),
    "gi_endoscopy": ("endoscopy", ["mucosa", "polyp"]),
    "retinal_fundus": ("fundus", ["no_dr", "mild", "moderate", "severe", "pdr"]),
    "retinal_oct": ("retinal_oct", ["cnv", "dme", "drusen", "normal"]),
    "skin_dermatoscopy": ("dermatoscopy", ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]),
}


def part_of(pack: Path, classes: list[str], target: Path) -> dict[str, dict[str, str]]:
    """Write a table of the first images of each class; return its rows by file."""
    with (pack / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    taken: Counter[str] = Counter()
    chosen = {}
    for row in rows:
        taken[row["label"]] += 1
        if row["label"] in classes and taken[row["label"]] <= PER_CLASS:
            chosen[row["file"]] = row
    columns = [column for column in ("file", "label", "patient_id", "group_id") if column in rows[0]]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(chosen.values())
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PACKS))
def test_an_epoch_on_real_images(name: str, shared: Path, tmp_path: Path) -> None:
    folder, classes = PACKS[name]
    pack = shared / "data" / folder
    rows = part_of(pack, classes, tmp_path / "part.csv")
    root = tmp_path / name
    shutil.copytree(REPOSITORY / "bundles" / f"{name}_classification", root)
    bundle = BundleCopy(root, pack)
    given: dict[str, Any] = {"datalist": str(tmp_path / "part.csv"), "class_names": classes}
    flow = bundle.run("train", image_size=64, **given)
    assert math.isfinite(float(flow.trainer.state.output["loss"].detach()))
    bundle.run("evaluate", **given)

    parts = json.loads((root / "eval" / "datalist.json").read_text())
    files = {part: [item["image"] for item in parts[part]] for part in ("training", "validation", "test")}
    assert sorted(itertools.chain.from_iterable(files.values())) == sorted(rows)
    unit = next((column for column in ("patient_id", "group_id") if column in next(iter(rows.values()))), None)
    if unit is not None:
        groups = [{rows[file][unit] for file in part} for part in files.values()]
        assert sum(map(len, groups)) == len(set.union(*groups)), "a patient or group stands in two parts"

    metrics = json.loads((root / "eval" / "metrics.json").read_text())
    assert metrics["class_names"] == classes
    assert metrics["n"] == len(files["test"])
    with (root / "eval" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        predictions = list(csv.DictReader(file))
    assert {row["file"]: row["label"] for row in predictions} == {f: rows[f]["label"] for f in files["test"]}
    assert len({row[classes[0]] for row in predictions}) > len(predictions) / 2, "the images make no difference"


@pytest.mark.slow
def test_a_ct_series_is_predicted_slice_by_slice(shared: Path, tmp_path: Path) -> None:
    root = tmp_path / "abdominal_ct"
    shutil.copytree(REPOSITORY / "bundles" / "abdominal_ct_classification", root)
    series = shared / "data" / "dicom" / "series_torchio"
    part_of(shared / "data" / "abdominal_ct", PACKS["abdominal_ct"][1], tmp_path / "part.csv")
    bundle = BundleCopy(root, shared / "data" / "abdominal_ct")
    bundle.run("train", image_size=64, datalist=str(tmp_path / "part.csv"))
    bundle.data = series
    bundle.run("inference")
    with (root / "eval" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        predictions = list(csv.DictReader(file))
    assert len(predictions) == 17
    assert len({row["abdomenct"] for row in predictions}) > 8
