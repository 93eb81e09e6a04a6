"""Folds: every image tested once, groups and copies whole, shares of classes as scikit-learn's or better."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from medmamba_monai.data.datalist import Datalist, Record
from medmamba_monai.data.duplicates import Duplicates
from medmamba_monai.data.folds import deal_folds
from medmamba_monai.errors import ConfigError, DataError


def pool(patients: int = 60, seed: int = 0) -> Datalist:
    """Patients with one to five images of mostly one class, in any part."""
    rng = random.Random(seed)
    records: list[Record] = []
    for patient in range(patients):
        main = rng.choice([0, 0, 1, 1, 2])
        for _ in range(rng.randint(1, 5)):
            label = main if rng.random() < 0.8 else rng.randrange(3)
            records.append({"image": f"{len(records)}.png", "label": label, "group": f"P{patient}"})
    third = len(records) // 3
    return Datalist(
        ["a", "b", "c"], training=records[:third], validation=records[third : 2 * third], test=records[2 * third :]
    )


def names(records: list[Record]) -> set[str]:
    return {record["image"] for record in records}


def test_every_image_is_tested_once_and_groups_stay_whole() -> None:
    given = pool()
    every = names(given.training) | names(given.validation) | names(given.test)
    dealt = deal_folds(given, 5, seed=3)
    tested = [record["image"] for datalist in dealt for record in datalist.test]
    assert sorted(tested) == sorted(every)
    for number, datalist in enumerate(dealt, start=1):
        datalist.check_disjoint()  # a group in two parts is an error
        assert names(datalist.training) | names(datalist.validation) | names(datalist.test) == every
        assert datalist.source["fold"] == number
        rest = len(datalist.training) + len(datalist.validation)
        assert abs(len(datalist.validation) / rest - 0.15) < 0.05
        assert min(datalist.counts("validation")) > 0


def test_shares_are_as_even_as_scikit_learns() -> None:
    given = pool(200)
    records = [*given.training, *given.validation, *given.test]
    labels, groups = [record["label"] for record in records], [record["group"] for record in records]
    total = Counter(labels)

    def unevenness(parts: list[list[int]]) -> float:
        return max(abs(Counter(part)[label] / total[label] - 0.2) for part in parts for label in total)

    ours = unevenness([datalist.labels("test") for datalist in deal_folds(given, 5)])
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups)
    theirs = unevenness([np.array(labels)[held_out].tolist() for _, held_out in folds])
    assert ours <= max(theirs, 0.02)


def test_copies_come_to_lie_in_one_part() -> None:
    given = pool(30)
    records = [*given.training, *given.validation, *given.test]
    first, last = records[0]["image"], records[-1]["image"]
    assert {records[0]["group"], records[-1]["group"]} == {"P0", "P29"}
    together = deal_folds(given, 4, copies=Duplicates(len(records), exact=[[first, last]]))
    apart = deal_folds(given, 4)
    for dealt, whole in ((together, True), (apart, False)):
        shared = [
            {first, last} <= part or not {first, last} & part
            for datalist in dealt
            for part in (names(datalist.training), names(datalist.validation), names(datalist.test))
        ]
        assert all(shared) == whole


def test_parts_that_are_left_out_and_the_seed() -> None:
    given = pool()
    dealt = deal_folds(given, 3, parts=("training", "validation"))
    seen = set().union(*(names(datalist.test) for datalist in dealt))
    assert seen == names(given.training) | names(given.validation)
    again, other = deal_folds(given, 3, seed=0), deal_folds(given, 3, seed=1)
    assert [d.digest for d in again] == [d.digest for d in deal_folds(given, 3)]
    assert [names(d.test) for d in again] != [names(d.test) for d in other]


def test_several_labels_an_image() -> None:
    rng = random.Random(0)
    records: list[Record] = [
        {"image": f"{index}.png", "label": [int(rng.random() < share) for share in (0.5, 0.3, 0.2)]}
        for index in range(200)
    ]
    dealt = deal_folds(Datalist(["a", "b", "c"], training=records, task="multilabel"), 4)
    totals = np.array([record["label"] for record in records]).sum(0)
    for datalist in dealt:
        assert datalist.task == "multilabel"
        assert np.abs(np.array(datalist.counts("test")) / totals - 0.25).max() < 0.05


@pytest.mark.parametrize(("folds", "options"), [(1, {}), (0, {}), (3, {"validation": 0.0}), (3, {"validation": 1.0})])
def test_numbers_without_sense_are_refused(folds: int, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        deal_folds(pool(), folds, **options)


def test_small_classes_are_named() -> None:
    few: list[Record] = [{"image": f"r{i}", "label": 1, "group": "P1" if i < 9 else f"Q{i}"} for i in range(12)]
    many: list[Record] = [{"image": f"m{i}", "label": 0} for i in range(40)]
    given = Datalist(["common", "rare"], training=[*few, *many])
    with pytest.raises(DataError, match=r"'rare' has 4 images or patients.* for 5 folds.*fewer folds"):
        deal_folds(given, 5)
    with pytest.raises(DataError, match="'rare' would have no .* image in fold"):
        deal_folds(given, 2)
    with pytest.raises(DataError, match="no images in test"):
        deal_folds(given, 2, parts=("test",))
