"""Tables put together: joined by images, averaged over networks, and the spread of their scores."""

from __future__ import annotations

import numpy as np
import pytest

from medmamba_monai.errors import DataError
from medmamba_monai.metrics import PredictionTable, classification_report
from medmamba_monai.metrics.pooling import average_tables, join_tables, score_values, spread_of


def made(files: list[str], seed: int = 0, groups: list[str] | None = None, task: str = "multiclass") -> PredictionTable:
    rng = np.random.default_rng(seed)
    labels = np.array([int(file[1:]) % 2 for file in files])
    return PredictionTable(["a", "b"], files, groups, labels, rng.dirichlet([1, 1], len(files)), task)


def test_joined_tables_keep_every_row() -> None:
    one, two = made(["i0", "i1"], 1, ["P1", "P1"]), made(["i2"], 2)
    joined = join_tables([one, two])
    assert joined.files == ["i0", "i1", "i2"]
    assert joined.groups == ["P1", "P1", "i2"]  # without a group an image stands for itself
    assert joined.labels is not None
    assert joined.labels.tolist() == [0, 1, 0]
    assert np.array_equal(joined.probabilities, np.concatenate([one.probabilities, two.probabilities]))
    assert join_tables([two]).groups is None


def test_averages_go_by_file_and_not_by_row() -> None:
    one, two = made(["i0", "i1", "i2"], 1), made(["i2", "i0", "i1"], 2)
    mean = average_tables([one, two])
    assert mean.files == one.files
    for index, file in enumerate(mean.files):
        expected = (one.probabilities[index] + two.probabilities[two.files.index(file)]) / 2
        assert np.allclose(mean.probabilities[index], expected)
    assert np.allclose(mean.probabilities.sum(1), 1)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([], "no predictions"),
        ([made(["i0"]), made(["i0"])], "'i0' is in two tables"),
        ([made(["i0"]), made(["i1"], task="multilabel")], "table 2 has task"),
        ([made(["i0"]), PredictionTable(["a", "c"], ["i1"], None, np.array([1]), np.eye(2)[:1])], "class_names"),
        ([made(["i0"]), PredictionTable(["a", "b"], ["i1"], None, None, np.eye(2)[:1])], "labels"),
    ],
)
def test_what_cannot_be_joined(tables: list[PredictionTable], message: str) -> None:
    with pytest.raises(DataError, match=message):
        join_tables(tables)


def test_what_cannot_be_averaged() -> None:
    with pytest.raises(DataError, match="other images: 'i0'"):
        average_tables([made(["i0"]), made(["i1"])])
    other = PredictionTable(["a", "b"], ["i0"], None, np.array([1]), np.eye(2)[:1])
    with pytest.raises(DataError, match="other labels"):
        average_tables([made(["i0"]), other])


def test_spread_is_numpys_and_says_nothing_where_a_value_is_undefined() -> None:
    values = [0.61, 0.72, 0.55, 0.8]
    found = spread_of(values)
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["sd"] == pytest.approx(np.std(values, ddof=1))
    assert spread_of([0.5]) == {"mean": 0.5, "sd": None, "values": [0.5]}
    assert spread_of([0.5, float("nan")]) == {"mean": None, "sd": None, "values": [0.5, None]}
    assert spread_of([])["mean"] is None


def test_scores_of_a_report_are_its_numbers() -> None:
    report = classification_report([0, 0], [[0.9, 0.1], [0.2, 0.8]], ["a", "b"])
    found = score_values(report)
    assert found["accuracy"] == 0.5
    assert found["auc"] is None
    assert not {"n", "per_class", "undefined", "class_names"} & set(found)
