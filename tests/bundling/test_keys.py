"""Kinds of values: what each takes and refuses, and what a command line's spelling becomes."""

from __future__ import annotations

from typing import Any

import pytest

from medmamba_monai.bundling.keys import KEYS, KINDS, normal
from medmamba_monai.metrics import MULTILABEL_SCORE_NAMES, SCORE_NAMES

GOOD_AND_BAD: dict[str, tuple[list[Any], list[Any]]] = {
    "text": (["a"], ["", None, 3, True, ["a"]]),
    "text?": (["a", None], ["", 3]),
    "flag": ([True, False], ["true", 1, None]),
    "flag or path": ([True, "x.pt"], ["", 2, None]),
    "count": ([1, 50], [0, -1, 1.0, "3", True, None]),
    "whole": ([0, 4], [-1, 0.5, False]),
    "open share": ([0.05, 0.5], [0, 1, 10, -0.1, float("nan"), "0.1", True]),
    "rate": ([0.1, 3], [0, -1, float("inf"), float("nan"), "0.1", True]),
    "amount": ([0, 0.05], [-0.1, float("nan")]),
    "fraction": ([0, 0.999], [1, -0.1]),
    "share": ([0, 0.5, 1], [1.1, -0.1, "1"]),
    "size": ([32, 224, [64, 96], (32,)], [31, [64, 0], [], [32] * 4, "64", 64.0, True]),
    "folders?": ([None, "a", ["a", "b"], []], ["", 3, [""], ["a", None], True]),
    "names?": ([None, ["a", "b"]], [["a"], "ab", ["a", 1]]),
    "window?": ([None, [40, 400], (-600.0, 1500)], [[40, 0], [40], 40, ["40", "400"], [40, float("nan")]]),
    "frame?": ([None, "middle", 0, 17], [-1, "first", 1.5, True]),
    "spacing?": ([None, 2, 0.5, [1, 1, 3.0]], [0, -1, [1, 2], [1, 2, 0], "2", True, float("inf")]),
    "axes?": ([None, "PLS", "RAS", "SPR"], ["PL", "PLL", "PAS", "pls", "XYZ", 3, ["P", "L", "S"]]),
    "color": (["grey", "rgb"], ["gray", "RGB", None]),
    "metric": (["auc", "balanced_accuracy", "quadratic_kappa"], ["AUC", "loss", "kapa"]),
    "task": (["multiclass", "multilabel"], ["multi-label", None]),
    "uncertain": (["refuse", "negative", "positive"], ["ones", None, 0]),
    "split": (["test", "validation"], ["val", None]),
    "flag or pixels": ([True, False, 28, 224], [32, "64", None, 1, 0]),
    "layout?": ([None, {"kind": "folders"}, {"kind": "npz", "name": "x"}], [{}, {"kind": "csv"}, "folders", []]),
    "any": ([None, {}, 3], []),
}


def test_every_score_may_decide() -> None:
    """The key takes the names of both tasks; which belong to the task at hand, metrics.check_score says."""
    accepts = KINDS["metric"][1]
    assert all(accepts(name) for name in (*SCORE_NAMES, *MULTILABEL_SCORE_NAMES))


def test_every_kind_has_examples_and_every_key_a_kind() -> None:
    assert set(GOOD_AND_BAD) == set(KINDS)
    assert {key.kind for key in KEYS} <= set(KINDS)


@pytest.mark.parametrize("kind", sorted(GOOD_AND_BAD))
def test_a_kind_takes_the_good_and_refuses_the_bad(kind: str) -> None:
    good, bad = GOOD_AND_BAD[kind]
    fits = KINDS[kind][1]
    assert [value for value in good if not fits(value)] == []
    assert [value for value in bad if fits(value)] == []


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("flag", "False", False),
        ("flag", "on", True),
        ("flag", 0, False),
        ("flag", "maybe", "maybe"),
        ("flag or path", "no", False),
        ("flag or path", "models/checkpoint.pt", "models/checkpoint.pt"),
        ("flag or pixels", "true", True),
        ("flag or pixels", 64, 64),
        ("text", 12, "12"),
        ("text?", "None", None),
        ("names?", ("a", "b"), ["a", "b"]),
        ("size", (64, 96), [64, 96]),
        ("count", "5", "5"),
        ("window?", (40, 400), [40, 400]),
        ("window?", "null", None),
        ("frame?", "none", None),
    ],
)
def test_command_line_spellings(kind: str, given: Any, expected: Any) -> None:
    result = normal(kind, given)
    assert (result, type(result)) == (expected, type(expected))
