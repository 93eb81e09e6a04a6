"""Which split each image of a source goes to: as the source says, or drawn. Imports splits, duplicates and entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from medmamba_monai.data.duplicates import Duplicates
from medmamba_monai.data.entries import Entry, SplitName
from medmamba_monai.data.files import natural_key
from medmamba_monai.data.splits import assign_splits
from medmamba_monai.errors import DataError

__all__ = ["deal_out", "is_drawn"]


def is_drawn(entries: Sequence[Entry], shares: tuple[float, float, float]) -> bool:
    """Whether any image needs a split that the source does not give."""
    given = {entry.split for entry in entries}
    return None in given or ("validation" not in given and shares[1] > 0)


def deal_out(
    entries: Sequence[Entry],
    names: Sequence[str],
    shares: tuple[float, float, float],
    seed: int,
    *,
    duplicates: Duplicates | None = None,
    lenient: bool = False,
) -> list[SplitName]:
    """The split of each image.

    Splits that the source gives are kept. Where it gives training and test but no validation part, that is taken
    from the training part; where it gives none, all three are drawn. What is drawn keeps groups whole, and, where
    ``duplicates`` are known, copies of a picture together with all that is in their groups.

    Args:
        entries: the images.
        names: class names.
        shares: of training, validation and test.
        seed: of what is drawn.
        duplicates: copies among the images.
        lenient: accept classes with fewer groups than there are splits.

    Raises:
        DataError: such a class.
    """
    result: list[SplitName] = [entry.split or "training" for entry in entries]
    if not is_drawn(entries, shares):
        return result
    if {entry.split for entry in entries} == {None}:
        pool, part = list(range(len(entries))), shares
    else:
        # training and test are given: the validation part comes out of training, in proportion
        pool = [index for index, entry in enumerate(entries) if entry.split == "training"]
        part = (shares[0] / (shares[0] + shares[1]), shares[1] / (shares[0] + shares[1]), 0.0)
    drawn = [entries[index] for index in pool]
    number = {name: index for index, name in enumerate(names)}
    labels = [[number[name] for name in entry.names] for entry in drawn]
    # an entry without a group is a group of its own; the tuple keeps it apart from every given name
    groups: list[Hashable] = [entry.group or ("file", entry.file) for entry in drawn]
    if duplicates is not None:
        groups = duplicates.joined([entry.file for entry in drawn], groups)
    if not lenient:
        _refuse_small_classes(drawn, groups, sum(share > 0 for share in part), duplicates is not None)
    for index, split in zip(pool, assign_splits(labels, groups, part, seed), strict=True):
        result[index] = split
    return result


def _refuse_small_classes(entries: Sequence[Entry], groups: Sequence[Hashable], needed: int, compared: bool) -> None:
    found = {(name, group) for entry, group in zip(entries, groups, strict=True) for name in entry.names}
    units = Counter(name for name, _ in found)
    for name, count in sorted(units.items(), key=lambda item: natural_key(item[0])):
        if count < needed:
            copies = " that are no copies of one another" if compared else ""
            alike = ", or deal copies out one by one with --allow_leakage true" if compared else ""
            raise DataError(
                f"class {name!r} has {count} images or patients{copies}, too few for {needed} splits",
                remedy=f"add images, leave it out with exclude_classes=['{name}'], or accept that a split "
                f"lacks it with allow_missing_classes{alike}",
            )
