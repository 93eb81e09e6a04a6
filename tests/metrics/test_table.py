"""Reading predictions.csv back: what the writer wrote comes out, whatever else is refused with its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medmamba_monai.errors import DataError
from medmamba_monai.metrics import PredictionTable

TABLE = """file,group,label,prediction,benign,malignant
a.png,P1,benign,benign,0.75,0.25
b.png,,malignant,benign,0.6,0.4
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "predictions.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_rows_and_columns(tmp_path: Path) -> None:
    table = PredictionTable.read(written(tmp_path, TABLE))
    assert table.class_names == ["benign", "malignant"]
    assert table.files == ["a.png", "b.png"]
    assert table.clusters == ["P1", "b.png"]  # without a patient, an image stands for itself
    assert table.labels is not None
    np.testing.assert_array_equal(table.labels, [0, 1])
    np.testing.assert_allclose(table.probabilities, [[0.75, 0.25], [0.6, 0.4]])


def test_without_groups_and_labels(tmp_path: Path) -> None:
    table = PredictionTable.read(written(tmp_path, "file,prediction,x,y\na.png,x,0.9,0.1\n"))
    assert table.groups is None
    assert table.labels is None
    assert table.clusters == ["a.png"]


def test_several_labels(tmp_path: Path) -> None:
    text = "file,label,prediction,x,y\na.png,x|y,x,0.9,0.1\nb.png,No Finding,x,0.9,0.8\n"
    table = PredictionTable.read(written(tmp_path, text), task="multilabel")
    assert table.labels is not None
    np.testing.assert_array_equal(table.labels, [[1, 1], [0, 0]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("P1,benign,", "P1,cyst,"), "a.png: label 'cyst'"),
        (("0.75", "many"), "a.png, column benign: 'many' is no probability"),
        (("0.75", "nan"), "a.png: values that are no probabilities"),
        (("0.75", "-0.5"), "a.png: values that are no probabilities"),
        (("b.png", "a.png"), "'a.png' occurs twice"),
        (("prediction", "guess"), "no table of predictions"),
    ],
)
def test_wrong_tables_are_refused(change: tuple[str, str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"(?s){reason}"):
        PredictionTable.read(written(tmp_path, TABLE.replace(*change)))


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="evaluate or predict first"):
        PredictionTable.read(tmp_path / "predictions.csv")


def test_a_class_named_no_finding_keeps_its_labels(tmp_path: Path) -> None:
    text = "file,label,prediction,No Finding,x\na.png,No Finding,x,0.9,0.1\nb.png,,x,0.9,0.8\nc.png,x,x,0.9,0.8\n"
    table = PredictionTable.read(written(tmp_path, text), task="multilabel")
    assert table.labels is not None
    np.testing.assert_array_equal(table.labels, [[1, 0], [0, 0], [0, 1]])
