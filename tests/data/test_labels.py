"""Label texts to class names."""

from __future__ import annotations

import pytest

from medmamba_monai.data.entries import Entry
from medmamba_monai.data.labels import check_class_names, rename_and_drop, resolve_class_names
from medmamba_monai.errors import ConfigError, DataError


def _entries(*labels: str) -> list[Entry]:
    return [Entry(f"{index}.png", label, f"labels.csv, row {index + 2}") for index, label in enumerate(labels)]


def test_natural_order_by_default_and_declared_order_kept() -> None:
    entries = _entries("grade10", "grade2", "Grade1")
    assert resolve_class_names(entries, None) == ["Grade1", "grade2", "grade10"]
    declared = ["grade10", "Grade1", "grade2"]
    assert resolve_class_names(entries, declared) == declared


def test_unknown_label_names_file_row_and_nearest() -> None:
    with pytest.raises(DataError, match=r"labels.csv, row 3: label 'Malignent' of 1.png is unknown.*'malignant'\?"):
        resolve_class_names(_entries("benign", "Malignent"), ["benign", "malignant"])


def test_declared_class_without_image() -> None:
    with pytest.raises(DataError, match="'c' is declared and no image has it"):
        resolve_class_names(_entries("a", "b"), ["a", "b", "c"])
    assert resolve_class_names(_entries("a", "b"), ["a", "b", "c"], allow_missing=True) == ["a", "b", "c"]


@pytest.mark.parametrize("labels", [("a", "a"), ()])
def test_fewer_than_two_classes(labels: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="one class only: 'a'|no class"):
        resolve_class_names(_entries(*labels), None)


@pytest.mark.parametrize("twin", ["Benign", "benign  tumour"])
def test_labels_that_differ_in_case_or_blanks(twin: str) -> None:
    other = "benign" if twin == "Benign" else "Benign tumour"
    with pytest.raises(DataError, match="differ in case or blanks only"):
        resolve_class_names(_entries(other, twin, "x"), None)


def test_rename_merges_and_drop_works_before_and_after() -> None:
    entries = rename_and_drop(_entries("0", "1", "2", "3"), {"0": "no", "1": "yes", "2": "yes"}, ["3"])
    assert [entry.label for entry in entries] == ["no", "yes", "yes"]
    assert [e.label for e in rename_and_drop(_entries("0", "1"), {"0": "no"}, ["no"])] == ["1"]
    with pytest.raises(DataError, match="exclude_classes names 'basofil'"):
        rename_and_drop(_entries("a", "b"), None, ["basofil"])


@pytest.mark.parametrize("names", ["ab", ["a", "a"], ["a", " "], ["a", 1]])
def test_bad_class_names(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="class"):
        check_class_names(names)


def _with_findings(*cells: str) -> list[Entry]:
    names = [tuple(cell.split("|")) if cell else () for cell in cells]
    return [Entry(f"{i}.png", cell, f"row {i}", None, None, names[i]) for i, cell in enumerate(cells)]


def test_findings_are_renamed_merged_and_dropped_one_by_one() -> None:
    entries = rename_and_drop(_with_findings("a|b", "b", "", "c"), {"a": "x", "b": "x"}, ["c"])
    assert [(entry.label, entry.findings) for entry in entries] == [("x", ("x",)), ("x", ("x",)), ("", ()), ("", ())]


def test_findings_are_classes_each() -> None:
    assert resolve_class_names(_with_findings("b|a", "", "c10|c9"), None) == ["a", "b", "c9", "c10"]
    with pytest.raises(DataError, match=r"label 'm' of 0.png is unknown"):
        resolve_class_names(_with_findings("a|m"), ["a", "b"])


def test_the_separator_of_findings_is_no_part_of_a_name() -> None:
    with pytest.raises(DataError, match=r"labels.csv, row 3: label 'a\|b' names several classes.*--task multilabel"):
        resolve_class_names(_entries("a", "a|b"), None)
    with pytest.raises(ConfigError, match=r"class name 'a\|b' has a \|"):
        resolve_class_names(_with_findings("a", "b"), ["a|b", "a", "b"], allow_missing=True)


def test_names_of_columns_are_refused_before_anything_is_trained() -> None:
    with pytest.raises(DataError, match="'fold' has the name of a column of predictions.csv"):
        resolve_class_names(_entries("fold", "normal"), None)
