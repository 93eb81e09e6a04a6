"""What two splits share, told and refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.data.datalist import Datalist
from medmamba_monai.data.leakage import Leakage, divided_groups, find_leakage
from medmamba_monai.data.report import Duplicate
from medmamba_monai.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    shutil.copy(tmp_path / "0.png", tmp_path / "1.png")
    shutil.copy(tmp_path / "2.png", tmp_path / "5.png")
    return tmp_path


def datalist(groups: str = "------") -> Datalist:
    """0 to 2 are training, 3 validation, 4 and 5 test."""
    records = [
        {"image": f"{index}.png", "label": [index % 2, 1]} | ({} if name == "-" else {"group": name})
        for index, name in enumerate(groups)
    ]
    content = {"class_names": ["a", "b"], "training": records[:3], "validation": records[3:4], "test": records[4:]}
    return Datalist.from_json(content, allow_leakage=True)


def test_only_what_crosses_splits_counts(folder: Path) -> None:
    found = find_leakage(folder, datalist())
    assert found.images == 6
    assert [(pair.files, pair.splits, pair.labels) for pair in found.pairs] == [
        (("2.png", "5.png"), ("training", "test"), ("b", "a|b"))
    ]
    assert found and not found.groups
    (folder / "5.png").unlink()
    shutil.copy(folder / "4.png", folder / "5.png")
    assert not find_leakage(folder, datalist())


def test_groups_in_two_splits(folder: Path) -> None:
    assert divided_groups(datalist("PQPQ-P")) == [
        {"group": "P", "splits": ["training", "test"]},
        {"group": "Q", "splits": ["training", "validation"]},
    ]
    assert divided_groups(datalist("PPPQRR")) == []


def test_the_refusal_names_files_splits_and_the_remedy(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_leakage(folder, datalist("P--P--")).refuse("own.json")
    message = str(caught.value)
    assert message.startswith("own.json: 1 pairs of images in two splits show the same picture: ")
    assert "2.png (training) = 5.png (test), the same bytes; 1 groups are in two splits, the first: 'P' in" in message
    assert "patient_id" in message and "--allow_leakage true" in message
    Leakage(6).refuse("own.json")


def test_long_findings_are_cut_and_counted() -> None:
    pairs = [Duplicate((f"{i}", f"{i}x"), "near", 0.95, ("training", "test"), ("a", "b")) for i in range(8)]
    found = Leakage(20, pairs)
    assert found.told().endswith("4 (training) = 4x (test), similarity 0.950 and 3 more")
    record = found.to_json()
    assert (record["near_copies"], record["exact_copies"], len(record["examples"])) == (8, 0, 5)
