"""Several findings an image: cells, columns of 0 and 1, and every refusal."""

from __future__ import annotations

import pytest

from medmamba_monai.data.findings import check_task, indicator, indicator_columns, split_findings
from medmamba_monai.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("cell", "findings"),
    [
        ("Mass", ("Mass",)),
        ("Mass|Pleural Thickening", ("Mass", "Pleural Thickening")),
        (" Effusion | Mass | Effusion ", ("Effusion", "Mass")),
        ("No Finding", ()),
        ("no_finding", ()),
        ("NONE", ()),
    ],
)
def test_cells(cell: str, findings: tuple[str, ...]) -> None:
    assert split_findings(cell, "row 2") == findings


def test_no_finding_may_be_a_class_where_it_is_declared() -> None:
    assert split_findings("No Finding", "row 2", ["No Finding", "Mass"]) == ("No Finding",)


@pytest.mark.parametrize(
    ("cell", "message"), [("Mass||Nodule", "row 2: label .* has an empty name"), ("No Finding|Mass", "alone")]
)
def test_cells_that_make_no_sense(cell: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_findings(cell, "row 2")


@pytest.mark.parametrize("cell", ["0", "0.0", "1", "1.0"])
@pytest.mark.parametrize("policy", ["refuse", "negative", "positive"])
def test_clear_answers(cell: str, policy: str) -> None:
    assert indicator(cell, "Mass", "row 2", policy) == (float(cell) == 1)


@pytest.mark.parametrize(
    ("cell", "policy", "expected"),
    [("-1", "negative", False), ("-1.0", "positive", True), ("", "negative", False), ("", "positive", False)],
)
def test_uncertain_answers_by_policy(cell: str, policy: str, expected: bool) -> None:
    assert indicator(cell, "Mass", "row 2", policy) is expected
    with pytest.raises(
        DataError, match="row 2: column 'Mass' (is empty|holds -1.* \\(uncertain\\)).*--uncertain_labels"
    ):
        indicator(cell, "Mass", "row 2")


@pytest.mark.parametrize("policy", ["refuse", "positive"])
def test_other_values_are_never_answers(policy: str) -> None:
    with pytest.raises(DataError, match="row 2: column 'Mass' holds '2'"):
        indicator("2", "Mass", "row 2", policy)


HEADER = ["file", "B", "age", "A"]
ROWS = [(2, ["0.png", "0", "41", "1"]), (3, ["1.png", "1", "0", "-1"])]


def test_declared_columns_come_in_the_order_of_the_classes() -> None:
    assert indicator_columns(HEADER, ROWS, [0], ["A", "B"], None, "t.csv") == {"A": 3, "B": 1}
    merged = indicator_columns(HEADER, ROWS, [0], ["X"], {"A": "X", "B": "X"}, "t.csv")
    assert merged == {"B": 1, "A": 3}
    with pytest.raises(DataError, match=r"t.csv: has neither a label column nor a column 'C' \(columns: file, B, age"):
        indicator_columns(HEADER, ROWS, [0], ["A", "C"], None, "t.csv")


def test_columns_are_found_only_where_no_other_is_there() -> None:
    assert indicator_columns(["file", "B", "A"], [(2, ["x", "0", ""]), (3, ["y", "1", "1"])], [0], None, None, "") == {
        "B": 1,
        "A": 2,
    }
    with pytest.raises(DataError, match=r"not of 0 and 1 alone: age. Remedy: .*class_names=\['B', 'A'\]"):
        indicator_columns(HEADER, ROWS, [0], None, None, "t.csv")
    with pytest.raises(DataError, match="no column of 0 and 1"):
        indicator_columns(["file"], [(2, ["x"])], [0], None, None, "t.csv")


def test_tasks_and_policies_are_closed_lists() -> None:
    check_task("multilabel", "negative")
    with pytest.raises(ConfigError, match="task='multi'.*multiclass, multilabel"):
        check_task("multi")
    with pytest.raises(ConfigError, match="uncertain='ones'.*refuse, negative, positive"):
        check_task("multilabel", "ones")
