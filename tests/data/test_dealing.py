"""Which split each image goes to: given ones are kept, copies and groups stay whole, small classes are refused."""

from __future__ import annotations

import pytest

from medmamba_monai.data.dealing import deal_out, is_drawn
from medmamba_monai.data.duplicates import Duplicates
from medmamba_monai.data.entries import Entry, SplitName
from medmamba_monai.errors import DataError

SHARES = (0.6, 0.2, 0.2)


def entries(*splits: SplitName | None) -> list[Entry]:
    return [Entry(f"{i}.png", "ab"[i % 2], f"row {i}", None, split) for i, split in enumerate(splits)]


def test_given_splits_are_kept() -> None:
    given = entries("test", "validation", "training")
    assert not is_drawn(given, SHARES)
    assert deal_out(given, ["a", "b"], SHARES, 0) == ["test", "validation", "training"]
    assert not is_drawn(entries("training", "test"), (0.8, 0.0, 0.2))


def test_validation_is_taken_from_training_where_it_is_not_given() -> None:
    given = entries(*["training"] * 16, *["test"] * 4)
    assert is_drawn(given, SHARES)
    splits = deal_out(given, ["a", "b"], SHARES, 0)
    assert splits[16:] == ["test"] * 4
    assert splits[:16].count("validation") == 4


def test_copies_stay_together_with_their_groups() -> None:
    drawn = [Entry(f"{i}.png", "ab"[i % 2], "", f"P{i // 2}") for i in range(60)]
    chain = [["0.png", "11.png"], ["10.png", "31.png", "45.png"]]  # 10 and 11 are of one patient
    near = [("44.png", "59.png", 0.97)]
    splits = deal_out(drawn, ["a", "b"], SHARES, 3, duplicates=Duplicates(60, chain, near))
    united = {0, 1, 10, 11, 30, 31, 44, 45, 58, 59}
    assert len({splits[i] for i in united}) == 1
    assert {splits[i] for i in range(60)} == {"training", "validation", "test"}
    assert all(splits[i] == splits[i + 1] for i in range(0, 60, 2))
    apart = [len({deal_out(drawn, ["a", "b"], SHARES, seed)[i] for i in united}) for seed in range(3)]
    assert max(apart) > 1, "the copies would be together without being known"


def test_small_classes_are_refused_and_copies_count_once() -> None:
    drawn = [Entry(f"{i}.png", "ab"[i % 2], "") for i in range(20)]
    copies = Duplicates(20, [[f"{i}.png" for i in range(1, 20, 2)]])
    assert len(deal_out(drawn, ["a", "b"], SHARES, 0)) == 20
    with pytest.raises(DataError, match="class 'b' has 1 images or patients that are no copies of one another"):
        deal_out(drawn, ["a", "b"], SHARES, 0, duplicates=copies)
    assert len(set(deal_out(drawn, ["a", "b"], SHARES, 0, duplicates=copies, lenient=True)[1::2])) == 1
    with pytest.raises(DataError, match="class 'b' has 2 images or patients, too few for 3 splits"):
        deal_out(drawn[:5], ["a", "b"], SHARES, 0)


def test_findings_are_dealt_out_class_by_class() -> None:
    cells = [(), ("a",), ("a", "b"), ("b",), ()]
    drawn = [Entry(f"{i}.png", "", "", None, None, cells[i % 5]) for i in range(100)]
    splits = deal_out(drawn, ["a", "b"], SHARES, 0)
    for kind in range(5):
        assert 10 <= [splits[i] for i in range(kind, 100, 5)].count("training") <= 14
    rare = [*drawn, Entry("x.png", "", "", None, None, ("c", "a"))]
    with pytest.raises(DataError, match="class 'c' has 1 images"):
        deal_out(rare, ["a", "b", "c"], SHARES, 0)
