"""What a report says and when it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmamba_monai.data.report import CheckReport, Duplicate
from medmamba_monai.errors import DataError

COPY = Duplicate(("a.png", "b.png"), "near", 0.97, ("training", "test"), ("x", "x"))
TWIN = Duplicate(("a.png", "c.png"), "exact", 1.0, ("training", "training"), ("x", "y"))


def test_ok_only_without_problems(tmp_path: Path) -> None:
    report = CheckReport(3, {"x": {"training": 3}}, duplicates=[TWIN])
    assert report.ok and report.leaks == [] and report.conflicts == [TWIN]
    report.raise_for_problems()
    report.save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["ok"] is True
    assert content["counts"]["label_conflicts"] == 1
    assert content["duplicates"][0]["files"] == ["a.png", "c.png"]


@pytest.mark.parametrize(
    ("finding", "message"),
    [
        ({"duplicates": [TWIN, COPY]}, r"1 pictures are on both sides.*a.png \(training\) and b.png \(test, near\)"),
        ({"groups_in_two_splits": [{"group": "P1", "splits": ["training", "test"]}]}, "'P1' in training and test"),
        ({"unreadable": [{"file": "a.png", "error": "a.png: is empty"}]}, "1 images cannot be read.*a.png: is empty"),
    ],
)
def test_refusals(finding: dict, message: str) -> None:
    report = CheckReport(3, {}, **finding)
    assert not report.ok
    with pytest.raises(DataError, match=message):
        report.raise_for_problems()


def test_long_lists_are_cut_and_counted() -> None:
    report = CheckReport(5000, {}, odd=[{"file": "x", "what": "y"}] * 5000)
    content = report.to_json()
    assert len(content["odd"]) == 1000
    assert content["counts"]["odd"] == 5000
