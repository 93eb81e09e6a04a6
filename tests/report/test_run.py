"""Everything a folder holds is read; what is missing or damaged is said, unless nothing goes without it."""

from __future__ import annotations

from typing import Any

import pytest

from medmamba_monai.errors import DataError
from medmamba_monai.report import read_run
from medmamba_monai.report.run import data_name


def test_a_whole_folder(make: Any) -> None:
    run = read_run(make())
    assert (run.name, run.split, len(run.table.files)) == ("ultrasound", "test", 40)
    assert run.experiment == "breast_ultrasound_classification"
    assert [row["val_auc"] for row in run.history] == [0.5, 0.75]
    assert run.datalist is not None
    assert len(run.datalist.test) == 40
    assert set(run.configs) == {"train", "evaluate"}
    assert run.remarks == []


def test_predictions_and_metrics_are_enough(make: Any) -> None:
    run = read_run(make(whole=False))
    assert (run.name, run.split, run.history, run.datalist, run.explanations) == ("eval", "evaluated", [], None, None)


def test_the_part_is_found_in_the_data_list(make: Any) -> None:
    folder = make()
    (folder / "evaluate_config.json").unlink()
    (folder / "train_config.json").unlink()
    assert read_run(folder).split == "test"
    assert read_run(folder, "validation").split == "validation"


@pytest.mark.parametrize("name", ["history.csv", "datalist.json", "evaluate_config.json", "explanations/index.json"])
def test_a_damaged_file_is_said(make: Any, name: str) -> None:
    folder = make()
    (folder / name).write_text("[")
    run = read_run(folder)
    assert len(run.remarks) == 1
    assert run.remarks[0].startswith(name.split("/")[-1])


def test_nothing_goes_without_predictions_and_metrics(make: Any) -> None:
    folder = make()
    (folder / "metrics.json").write_text("[]")
    with pytest.raises(DataError, match="no JSON object"):
        read_run(folder)
    (folder / "metrics.json").unlink()
    with pytest.raises(DataError, match=r"metrics\.json.*evaluation"):
        read_run(folder)


def test_predictions_without_labels_are_refused(make: Any) -> None:
    folder = make(whole=False)
    (folder / "predictions.csv").write_text("file,prediction,benign,malignant\na,benign,1,0\n")
    with pytest.raises(DataError, match="no labels"):
        read_run(folder)


def test_a_name_tells_no_folder() -> None:
    assert data_name("/home/me/secret/scans") == "scans"
    assert data_name(None, None, "x") == data_name("@somewhere", {}, "x") == "x"
