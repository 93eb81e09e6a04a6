"""Stratified, grouped, seeded splits. Knows groups and class numbers only; imports errors and entries."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from medmamba_monai.data.entries import SPLITS, SplitName
from medmamba_monai.errors import ConfigError

__all__ = ["assign_parts", "assign_splits", "check_fractions"]

_PASSES = 8
_NO_CLASS = -1
_ATTEMPTS = 50  # at most, where a class would be missing from a split


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """Shares of training, validation and test as three floats.

    Raises:
        ConfigError: not three numbers in [0, 1] that sum to 1 with a training share above 0.

    Example:
        >>> check_fractions([0.8, 0.2, 0])
        (0.8, 0.2, 0.0)
    """
    values = [float(value) for value in fractions]
    ok = len(values) == 3 and all(math.isfinite(v) and v >= 0 for v in values)
    if not ok or values[0] == 0 or abs(sum(values) - 1) > 1e-6:
        raise ConfigError(
            f"fractions {list(fractions)} are no shares of training, validation and test",
            remedy="give three numbers that sum to 1, the first above 0, such as (0.7, 0.15, 0.15)",
        )
    return values[0], values[1], values[2]


def assign_splits(
    labels: Sequence[int | Sequence[int]],
    groups: Sequence[Hashable] | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> list[SplitName]:
    """One split for each sample: class shares follow ``fractions``, a group is never divided; see ``assign_parts``.

    Args:
        labels: class numbers, one a sample; or for each sample the numbers of its classes, which may be none.
        groups: patient or other unit of each sample; None: every sample is its own.
        fractions: shares of training, validation and test; a share of 0 leaves that split empty.
        seed: chooses among equally good assignments.

    Raises:
        ConfigError: the fractions make no sense.

    Example:
        >>> splits = assign_splits([0] * 10 + [1] * 10, fractions=(0.6, 0.2, 0.2))
        >>> splits[:10].count("training"), splits[10:].count("test")
        (6, 2)
        >>> assign_splits([[0, 1], [0], []] * 10, fractions=(0.5, 0.5, 0))[:30:3].count("training")
        5
    """
    return [SPLITS[part] for part in assign_parts(labels, groups, check_fractions(fractions), seed)]


def assign_parts(
    labels: Sequence[int | Sequence[int]],
    groups: Sequence[Hashable] | None,
    shares: Sequence[float],
    seed: int = 0,
) -> list[int]:
    """The number of a part for each sample: class shares follow ``shares``, a group is never divided.

    Groups are placed class by class, the class with the fewest groups first, each into the split that is
    furthest below its share of that class (iterative stratification, Sechidis et al. 2011, with groups as the
    units), with the group's other classes weighed in. The last groups of a class go to the splits that have
    none of it, so a class with at least as many groups as there are splits with a share above 0 is in each of
    them. Of several such passes the one closest to the shares counts. The result depends on the arguments
    alone.

    A sample may have several classes: then the rarest of them decides first, and the others are weighed in.
    Samples without any class are dealt out by the same rule, as a class of their own.

    Args:
        labels: class numbers, one a sample; or for each sample the numbers of its classes, which may be none.
        groups: patient or other unit of each sample; None: every sample is its own.
        shares: of each part, together 1; a share of 0 leaves that part empty.
        seed: chooses among equally good assignments.

    Example:
        >>> parts = assign_parts([0] * 10 + [1] * 5, None, [0.2] * 5)
        >>> [(parts[:10].count(part), parts[10:].count(part)) for part in range(5)]
        [(2, 1), (2, 1), (2, 1), (2, 1), (2, 1)]
    """
    if len(labels) == 0:
        return []
    keys: Sequence[Hashable] = range(len(labels)) if groups is None else groups
    content: dict[Hashable, Counter[int]] = defaultdict(Counter)
    for key, label in zip(keys, labels, strict=True):
        content[key].update((label or [_NO_CLASS]) if isinstance(label, Sequence) else [label])
    best: dict[Hashable, int] = {}
    least = (math.inf, math.inf)
    passes = _PASSES if any(len(counts) > 1 for counts in content.values()) else 1
    for attempt in range(_ATTEMPTS):
        placed = _place(content, shares, random.Random(f"{seed}/{attempt}"))  # noqa: S311 - not for security
        cost = _cost(content, placed, shares)
        if cost < least:
            best, least = placed, cost
        if least[0] == 0 and attempt + 1 >= passes:
            break
    return [best[key] for key in keys]


def _place(content: dict[Hashable, Counter[int]], shares: Sequence[float], rng: random.Random) -> dict[Hashable, int]:
    """One greedy pass: group -> number of its split."""
    totals: Counter[int] = Counter()
    for counts in content.values():
        totals.update(counts)
    used = [split for split in range(len(shares)) if shares[split] > 0]
    wanted = {label: [share * total for share in shares] for label, total in totals.items()}
    room = [share * sum(totals.values()) for share in shares]
    has: dict[int, set[int]] = {label: set() for label in totals}
    members: dict[int, list[Hashable]] = defaultdict(list)
    order = list(content)
    rng.shuffle(order)
    for key in order:
        for label in content[key]:
            members[label].append(key)
    placed: dict[Hashable, int] = {}
    open_labels = sorted(totals)
    while open_labels:
        left = {label: [key for key in members[label] if key not in placed] for label in open_labels}
        label = min(open_labels, key=lambda item: (len(left[item]), item))
        open_labels.remove(label)
        queue = sorted(left[label], key=lambda item: -content[item][label])
        for position, key in enumerate(queue):
            lacking = [split for split in used if split not in has[label]]
            forced = len(queue) - position <= len(lacking)
            counts = content[key]

            def gain(item: int, counts: Counter[int] = counts) -> tuple[float, float, int]:
                # by how much the chi-square distance from the shares falls
                parts = (n * (2 * wanted[c][item] - n) / totals[c] for c, n in counts.items())
                return sum(parts) / shares[item], room[item], -item

            split = max(lacking if forced else used, key=gain)
            placed[key] = split
            for other, count in counts.items():
                wanted[other][split] -= count
                room[split] -= count
                has[other].add(split)
    return placed


def _cost(
    content: dict[Hashable, Counter[int]], placed: dict[Hashable, int], shares: Sequence[float]
) -> tuple[float, float]:
    """Empty (class, split) pairs that need not be empty, and the distance from the shares."""
    used = [split for split in range(len(shares)) if shares[split] > 0]
    got: dict[int, list[int]] = defaultdict(lambda: [0] * len(shares))
    units: Counter[int] = Counter()
    for key, counts in content.items():
        for label, count in counts.items():
            got[label][placed[key]] += count
            units[label] += 1
    empty = sum(got[label][split] == 0 for label, unit in units.items() if unit >= len(used) for split in used)
    distance = sum(abs(n / sum(c) - share) for c in got.values() for n, share in zip(c, shares, strict=True))
    return empty, distance
