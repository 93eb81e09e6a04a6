"""Splits: shares, groups, small classes, determinism."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

from medmamba_monai.data.splits import assign_splits, check_fractions
from medmamba_monai.errors import ConfigError


def _shares(labels: list[int], splits: list[str]) -> np.ndarray:
    table = Counter(zip(labels, splits, strict=True))
    rows = [[table[label, split] for split in ("training", "validation", "test")] for label in sorted(set(labels))]
    return np.array(rows) / np.sum(rows, axis=1, keepdims=True)


def test_shares_are_those_of_sklearn_when_ungrouped() -> None:
    labels = [0] * 500 + [1] * 100 + [2] * 20
    splits = assign_splits(labels, fractions=(0.6, 0.2, 0.2))
    _, held_out = next(StratifiedShuffleSplit(1, test_size=0.2, random_state=0).split(labels, labels))
    oracle = Counter(np.asarray(labels)[held_out].tolist())
    ours = Counter(label for label, split in zip(labels, splits, strict=True) if split == "test")
    assert all(abs(oracle[label] - ours[label]) <= 1 for label in (0, 1, 2))


def test_grouped_shares_are_as_close_as_sklearn() -> None:
    rng = random.Random(1)
    groups, labels = [], []
    for group in range(200):
        main = rng.choice([0, 0, 0, 1, 1, 2])
        for _ in range(rng.randint(1, 6)):
            groups.append(group)
            labels.append(main if rng.random() < 0.8 else rng.randrange(3))
    splits = assign_splits(labels, groups, (0.6, 0.2, 0.2))
    ours = np.abs(_shares(labels, splits) - [0.6, 0.2, 0.2]).max()
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    parts = [held_out for _, held_out in folds.split(labels, labels, groups)]
    named = ["training"] * len(labels)
    for part, name in zip(parts[:2], ("validation", "test"), strict=True):
        for index in part:
            named[index] = name
    theirs = np.abs(_shares(labels, named) - [0.6, 0.2, 0.2]).max()
    assert ours <= max(theirs, 0.02)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15)), min_size=1, max_size=80), st.integers(0, 3))
def test_a_group_is_never_divided_and_small_classes_reach_every_split(pairs: list[tuple[int, int]], seed: int) -> None:
    labels, groups = [p[0] for p in pairs], [p[1] for p in pairs]
    splits = assign_splits(labels, groups, seed=seed)
    where = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        where[group].add(split)
    assert all(len(found) == 1 for found in where.values())
    # one class a group: then three groups of a class must reach all three splits
    single = [group % 4 for group in groups]
    splits = assign_splits(single, groups, seed=seed)
    for label in set(single):
        own = {group for group in groups if group % 4 == label}
        reached = {split for value, split in zip(single, splits, strict=True) if value == label}
        assert len(reached) == 3 or len(own) < 3


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_few_groups_still_reach_every_split(count: int) -> None:
    splits = assign_splits([0] * 100 + [1] * count)
    assert set(splits[100:]) == {"training", "validation", "test"}
    assert splits[100:].count("training") == count - 2 or count > 5


def test_deterministic_and_seeded() -> None:
    labels = [index % 3 for index in range(60)]
    assert assign_splits(labels, seed=3) == assign_splits(labels, seed=3)
    assert len({tuple(assign_splits(labels, seed=seed)) for seed in range(5)}) == 5


def test_known_assignment_does_not_change() -> None:
    # a change here means that published splits can no longer be made again
    splits = assign_splits([0] * 8 + [1] * 8, list("aabbccddeeffgghh"), seed=0)
    assert " ".join(split[:2] for split in splits) == "tr tr va va tr tr te te tr tr te te tr tr va va"


def test_string_and_number_groups_work_together() -> None:
    splits = assign_splits([0, 0, 1, 1, 0, 1], ["a", ("file", "a"), "b", ("file", "b"), "c", "d"])
    assert set(splits) == {"training", "validation", "test"}


def test_zero_fractions_leave_a_split_empty() -> None:
    splits = assign_splits([0] * 10 + [1] * 10, fractions=(0.8, 0.2, 0.0))
    assert Counter(splits) == {"training": 16, "validation": 4}
    assert assign_splits([], fractions=(1, 0, 0)) == []


@pytest.mark.parametrize("bad", [(0.5, 0.5), (0.7, 0.2, 0.2), (0, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"), 0, 1)])
def test_bad_fractions(bad: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="no shares"):
        check_fractions(bad)


def test_several_classes_a_sample_keep_their_shares() -> None:
    rng = np.random.default_rng(0)
    flags = rng.random((600, 5)) < [0.5, 0.3, 0.1, 0.04, 0.02]
    labels = [np.flatnonzero(row).tolist() for row in flags]
    groups = [index // 3 for index in range(600)]
    splits = np.array(assign_splits(labels, groups, (0.6, 0.2, 0.2)))
    for split, share in (("training", 0.6), ("validation", 0.2), ("test", 0.2)):
        counts = flags[splits == split].sum(0)
        assert np.abs(counts - share * flags.sum(0)).max() <= 4
        assert (splits == split).sum() == pytest.approx(share * 600, abs=15)
        assert counts.min() >= 1
        none = (~flags.any(1))[splits == split].sum()
        assert none == pytest.approx(share * (~flags.any(1)).sum(), abs=8)
    assert all(len(set(splits[start : start + 3])) == 1 for start in range(0, 600, 3))


def test_one_class_in_a_list_is_the_class_itself() -> None:
    labels = [index % 3 for index in range(60)]
    assert assign_splits(labels, seed=3) == assign_splits([[label] for label in labels], seed=3)
