"""Copies of pictures and patients across splits: kept together where we draw, refused where they are given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.data import duplicates
from medmamba_monai.errors import DataError, MedMambaError

from .conftest import BundleCopy

NAMES = ["benign", "malignant", "normal"]
PARTS = ("training", "validation", "test")


def refused(bundle: BundleCopy, **overrides: Any) -> str:
    with pytest.raises((RuntimeError, MedMambaError)) as caught:
        bundle.run("train", **overrides)
    reason = root_cause(caught.value)
    assert isinstance(reason, DataError), reason
    return str(reason)


def mirror(source: Path, target: Path) -> None:
    """The picture mirrored, in other bytes."""
    Image.open(source).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target, quality=98)


@pytest.fixture
def given(fresh: BundleCopy, tmp_path: Path) -> Path:
    """A list that deals the bundle's images out: 0 to 5 training, 6 and 7 validation, 8 and 9 test of each class."""
    shares = {"training": range(6), "validation": range(6, 8), "test": range(8, 10)}
    parts = {
        part: [{"image": f"{n}/{i}.png", "label": c} for c, n in enumerate(NAMES) for i in numbers]
        for part, numbers in shares.items()
    }
    file = tmp_path / "list.json"
    file.write_text(json.dumps({"class_names": NAMES, **parts}))
    return file


def test_copies_come_to_lie_in_one_part(fresh: BundleCopy) -> None:
    for number in range(3):
        shutil.copy(fresh.data / "benign" / f"{number}.png", fresh.data / "benign" / f"copy_{number}.png")
        mirror(fresh.data / "normal" / f"{number}.png", fresh.data / "normal" / f"mirror_{number}.jpg")
    fresh.run("train")
    datalist = json.loads((fresh.root / "eval" / "datalist.json").read_text())
    planted = [[f"benign/{number}.png", f"benign/copy_{number}.png"] for number in range(3)]
    planted += [[f"normal/{number}.png", f"normal/mirror_{number}.jpg"] for number in range(3)]
    assert sorted(datalist["source"]["copies_kept_together"]) == planted
    where = {item["image"]: part for part in PARTS for item in datalist[part]}
    assert all(where[one] == where[other] for one, other in planted)


def test_given_parts_that_share_a_picture_are_refused(
    fresh: BundleCopy, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = (fresh.data / "benign" / "8.png").read_bytes()
    shutil.copy(fresh.data / "benign" / "0.png", fresh.data / "benign" / "8.png")
    mirror(fresh.data / "normal" / "1.png", fresh.data / "normal" / "6.png")
    message = refused(fresh, datalist=str(given))
    assert "list.json: 2 pairs of images in two splits show the same picture" in message
    assert "benign/0.png (training) = benign/8.png (test), the same bytes" in message
    assert "normal/1.png (training) = normal/6.png (validation), similarity" in message
    assert "--allow_leakage true" in message
    assert not (fresh.root / "models").exists()

    reads: list[str] = []
    read = duplicates.read_image
    monkeypatch.setattr(duplicates, "read_image", lambda path: reads.append(path) or read(path))
    assert refused(fresh, datalist=str(given)) == message
    assert reads == [], "the images were compared before"
    (fresh.data / "benign" / "8.png").write_bytes(original)
    assert "1 pairs of images" in refused(fresh, datalist=str(given))
    assert len(reads) == 30, "an image has changed"


def test_what_is_allowed_is_recorded(fresh: BundleCopy, given: Path, caplog: pytest.LogCaptureFixture) -> None:
    from mlflow.tracking import MlflowClient

    content = json.loads(given.read_text())
    content["training"][0]["group"] = content["test"][0]["group"] = "P7"
    given.write_text(json.dumps(content))
    shutil.copy(fresh.data / "benign" / "0.png", fresh.data / "benign" / "8.png")
    message = refused(fresh, datalist=str(given))
    assert "group 'P7' is in training and in test" in message
    assert "--allow_leakage true" in message
    fresh.run("train", datalist=str(given), allow_leakage="true", mlflow=True)
    assert "allow_leakage: scores will be too good: 1 pairs of images" in caplog.text
    fresh.run("evaluate")
    found = json.loads((fresh.root / "eval" / "metrics.json").read_text())["leakage"]
    assert found == {
        "images": 30,
        "exact_copies": 1,
        "near_copies": 0,
        "groups": 1,
        "examples": [
            "benign/0.png (training) = benign/8.png (test), the same bytes",
            "group P7 (training, test)",
        ],
    }
    assert json.loads((fresh.root / "models" / "model.json").read_text())["extra"]["leakage"] == found
    client = MlflowClient(f"sqlite:///{fresh.root / 'eval' / 'mlruns.db'}")
    runs = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    assert {run.data.params.get("leakage.exact_copies") for run in runs} == {"1"}


def test_without_leakage_nothing_is_remarked(fresh: BundleCopy, given: Path) -> None:
    fresh.run("train", datalist=str(given), allow_leakage=True)
    assert "leakage" not in json.loads((fresh.root / "models" / "model.json").read_text())["extra"]
    fresh.run("evaluate")
    assert "leakage" not in json.loads((fresh.root / "eval" / "metrics.json").read_text())


def test_a_broken_test_image_does_not_stop_training(
    fresh: BundleCopy, given: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (fresh.data / "normal" / "9.png").write_bytes(b"no picture")
    fresh.run("train", datalist=str(given))
    assert "1 images could not be read to look for copies, the first: normal/9.png" in caplog.text


def test_phantoms_and_blank_films_block_nothing(fresh: BundleCopy, given: Path) -> None:
    for number in (0, 8, 9):
        Image.new("L", (50, 50), 0).save(fresh.data / "normal" / f"{number}.png")
    fresh.run("train", datalist=str(given))
