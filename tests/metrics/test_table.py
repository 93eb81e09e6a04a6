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
        (("malignant,benign,0.6", "malignant,cyst,0.6"), "b.png: prediction 'cyst' is none of the classes"),
        (("0.6,0.4", "0.6"), "row 3 has 5 cells, the header has 6"),
        (("0.75,0.25", "0.75,0.25,0"), "row 2 has 7 cells, the header has 6"),
        (("benign,malignant\n", "benign,benign\n"), "column 'benign' occurs twice"),
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


def test_what_excel_saves_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text(TABLE, encoding="utf-8-sig")
    assert PredictionTable.read(tmp_path / "predictions.csv").files == ["a.png", "b.png"]


def test_what_was_predicted_and_how_many_digits_there_are(tmp_path: Path) -> None:
    table = PredictionTable.read(written(tmp_path, TABLE))
    assert table.called is not None and table.called.tolist() == [0, 0]
    assert table.digit == pytest.approx(0.01)
    whole = PredictionTable.read(written(tmp_path, "file,prediction,x,y\na.png,x,1,0\n"))
    assert whole.digit == 0


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("column", [("checked", "1", "0"), ("score", "0.3", "0.2")])
def test_a_column_of_numbers_is_no_class(tmp_path: Path, task: str, column: tuple[str, str, str]) -> None:
    lines = [f"{line},{cell}" for line, cell in zip(TABLE.splitlines(), column, strict=True)]
    file = written(tmp_path, "\n".join(lines))
    if (task, column[0]) == ("multilabel", "score"):  # as a rare class may be: it takes metrics.json to tell
        assert PredictionTable.read(file, task).class_names[2] == "score"
        return
    with pytest.raises(DataError, match=f"no label and no prediction names '{column[0]}': not a class"):
        PredictionTable.read(file, task)


def test_a_class_that_no_image_has_and_none_is_predicted_stays(tmp_path: Path) -> None:
    text = "file,label,prediction,x,y,z\na.png,x,x,0.7,0.2,0.1\nb.png,y,y,0.33,0.34,0.33\n"
    assert PredictionTable.read(written(tmp_path, text)).class_names == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("rows", "task"),
    [
        ("a.png,x,x,0.6,0.4\nb.png,y,y,0.33,0.66", "multiclass"),  # rounded
        ("a.png,x|y,x,0.6,0.4\nb.png,y,y,0.3,0.7", "multilabel"),
        ("a.png,x,x,0.6,0.4\nb.png,y,,0.3,0.4", "multilabel"),
    ],
)
def test_the_task_is_told_by_labels_and_predictions(tmp_path: Path, rows: str, task: str) -> None:
    assert PredictionTable.read(written(tmp_path, f"file,label,prediction,x,y\n{rows}\n"), None).task == task


def test_a_task_that_cannot_be_told(tmp_path: Path) -> None:
    file = written(tmp_path, "file,label,prediction,x,y\na.png,x,x,0.6,0.1\nb.png,y,y,0.3,0.9\n")
    with pytest.raises(DataError, match="do not sum to one.*--task"):
        PredictionTable.read(file, None)
