"""The table of the rivals benchmark: scores over the seeds, and paired intervals of the differences to our network.

Resamples of patients or other groups are drawn once for a pack and serve all networks; within a resample the seeds'
scores are averaged, so an interval is about the test images and the standard deviation about the seeds.
Imports metrics.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..metrics import PredictionTable
from ..metrics.bootstrap import Interval, bootstrap_intervals, cluster_numbers
from ..metrics.resampled import Key, ResampledMetrics

__all__ = ["Contestant", "markdown", "rows"]

METRICS = ("balanced_accuracy", "auc")
Weighted = Callable[[NDArray[np.float64]], Mapping[Key, NDArray[np.float64]]]


@dataclass(frozen=True)
class Contestant:
    """What a network or the baseline predicted for the test part of a pack.

    Attributes:
        pack: the pack.
        name: the network.
        tables: predictions of each seed, all of the same files.
        parameters: of the network; 0: not a network.
        choice: the recipe chosen on the validation part, in words.
        seconds: of processor time a training took, of each seed (their median is shown); empty where it was not taken.
    """

    pack: str
    name: str
    tables: Sequence[PredictionTable]
    parameters: int
    choice: str
    seconds: Sequence[float]

    def scores(self, metric: str) -> list[float]:
        """The metric of each seed."""
        whole = np.ones((1, len(set(self.tables[0].clusters))))
        return [float(_resampled(table)(whole)[metric, None][0]) for table in self.tables]

    def mean(self) -> Weighted:
        """The mean of the seeds' metrics, as a function of cluster weights."""
        each = [_resampled(table) for table in self.tables]

        def metrics(weights: NDArray[np.float64]) -> dict[Key, NDArray[np.float64]]:
            found = [one(weights) for one in each]
            return {(name, None): np.mean([one[name, None] for one in found], axis=0) for name in METRICS}

        return metrics


def _resampled(table: PredictionTable) -> ResampledMetrics:
    if table.labels is None:
        raise DataError("predictions without labels cannot be scored")
    flags = np.eye(len(table.class_names), dtype=bool)
    member = cluster_numbers(table.clusters, len(table.files))
    called = flags[table.probabilities.argmax(axis=1)]
    return ResampledMetrics(flags[table.labels], table.probabilities, called, member, table.class_names)


def _difference(ours: Contestant, other: Contestant) -> dict[str, Interval]:
    """Ours minus the other, on the same resamples."""
    files = ours.tables[0].files
    for table in [*ours.tables, *other.tables]:
        if table.files != files:
            raise DataError(f"{other.name} was not tested on the images of {ours.name}", where=ours.pack)
    a, b = ours.mean(), other.mean()

    def metrics(weights: NDArray[np.float64]) -> dict[Key, NDArray[np.float64]]:
        mine, theirs = a(weights), b(weights)
        return {key: mine[key] - theirs[key] for key in mine}

    found = bootstrap_intervals(metrics, len(set(ours.tables[0].clusters)))
    return {name: found[name, None] for name in METRICS}


def rows(contestants: Sequence[Contestant], ours: str) -> list[dict[str, object]]:
    """A row for each contestant, with the paired difference of ours to it.

    Args:
        contestants: of one or more packs.
        ours: name of the network that the others are compared with.
    """
    table = []
    for entry in contestants:
        own = next(each for each in contestants if each.pack == entry.pack and each.name == ours)
        intervals = bootstrap_intervals(entry.mean(), len(set(entry.tables[0].clusters)))
        differences = None if entry is own else _difference(own, entry)
        row: dict[str, object] = {
            "pack": entry.pack,
            "network": entry.name,
            "parameters": entry.parameters,
            "test_images": len(entry.tables[0].files),
            "test_groups": len(set(entry.tables[0].clusters)),
            "seeds": len(entry.tables),
            "choice": entry.choice,
            "cpu_seconds": round(statistics.median(entry.seconds)) if entry.seconds else "",
        }
        for metric in METRICS:
            scores = entry.scores(metric)
            row[metric] = f"{statistics.mean(scores):.4f}"
            row[f"{metric}_sd"] = f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
            row[f"{metric}_95"] = _bounds(intervals[metric, None])
            row[f"{metric}_by_seed"] = " ".join(f"{score:.4f}" for score in scores)
            if differences is None:
                row |= {f"{metric}_ours_minus": "", f"{metric}_ours_minus_95": ""}
            else:
                row[f"{metric}_ours_minus"] = f"{statistics.mean(own.scores(metric)) - statistics.mean(scores):.4f}"
                row[f"{metric}_ours_minus_95"] = _bounds(differences[metric])
        table.append(row)
    return table


def _bounds(interval: Interval) -> str:
    return "" if interval.bounds is None else f"{interval.bounds[0]:.4f} {interval.bounds[1]:.4f}"


def markdown(table: Sequence[Mapping[str, object]], budget: str, command: str, machine: str) -> str:
    """The page: what was done, the table, how often ours is ahead, behind, or within noise.

    Args:
        table: rows as :func:`rows` gives them, or as read from the CSV file.
        budget: what every network got, in words.
        command: how to make it again.
        machine: what it was made on.
    """
    lines = [
        "# Our network beside MONAI's",
        "",
        f"{budget} The test part was looked at once a run. Means ± standard deviation over the seeds; brackets: 95 % "
        "bootstrap interval over patients or other groups where known. *Ours minus it*: paired on the same resamples; "
        "bold where the interval leaves out 0.",
        "",
        "| pack | test images | network | parameters | chosen | balanced accuracy | AUC "
        "| ours minus it: balanced accuracy | ours minus it: AUC | CPU seconds a training |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table:
        parameters = int(str(row["parameters"]))
        cells = [
            row["pack"],
            row["test_images"],
            row["network"],
            f"{parameters / 1e6:.1f} M" if parameters else "-",
            row["choice"],
            *(f"{_score(row, metric)} {_brackets(row[f'{metric}_95'])}" for metric in METRICS),
            *(_emphasised(row, metric) for metric in METRICS),
            row["cpu_seconds"] or "-",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", _verdict(table), "", f"Command: `{command}`. Machine: {machine}.", ""]
    return "\n".join(lines)


def _score(row: Mapping[str, object], metric: str) -> str:
    spread = f" ± {float(str(row[f'{metric}_sd'])):.3f}" if row[f"{metric}_sd"] else ""
    return f"{float(str(row[metric])):.3f}{spread}"


def _ends(text: object) -> tuple[float, float] | None:
    numbers = [float(part) for part in str(text).split()]
    return (numbers[0], numbers[1]) if numbers else None


def _brackets(text: object) -> str:
    ends = _ends(text)
    return "[undefined]" if ends is None else f"[{ends[0]:.2f}, {ends[1]:.2f}]"


def _emphasised(row: Mapping[str, object], metric: str) -> str:
    if not row[f"{metric}_ours_minus"]:
        return "-"
    text = f"{float(str(row[f'{metric}_ours_minus'])):+.3f} {_brackets(row[f'{metric}_ours_minus_95'])}"
    return f"**{text}**" if _side(row, metric) else text


def _side(row: Mapping[str, object], metric: str) -> int:
    """1: ours is ahead, -1: behind, 0: the interval holds 0 or there is none."""
    ends = _ends(row[f"{metric}_ours_minus_95"])
    return 0 if ends is None else int(ends[0] > 0) - int(ends[1] < 0)


def _verdict(table: Sequence[Mapping[str, object]]) -> str:
    compared = [row for row in table if row["balanced_accuracy_ours_minus"]]
    sides = [_side(row, "balanced_accuracy") for row in compared]
    return (
        f"Of {len(compared)} comparisons in balanced accuracy, ours is ahead in {sides.count(1)}, behind in "
        f"{sides.count(-1)}, and {sides.count(0)} differences are within noise."
    )
