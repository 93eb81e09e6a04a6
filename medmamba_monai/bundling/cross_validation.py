"""Folds and seeds of one bundle: dealt out once, trained and evaluated one by one, put together at the end.

Imports data, handlers, metrics and the other parts of bundling.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmamba_monai.bundling.experiment import Experiment, RunPlace
from medmamba_monai.bundling.parent_run import ParentRun
from medmamba_monai.bundling.pooled import pool
from medmamba_monai.bundling.subprocesses import finished
from medmamba_monai.data import Datalist, find_duplicates
from medmamba_monai.data.entries import SPLITS, SplitName
from medmamba_monai.data.folds import deal_folds
from medmamba_monai.handlers.predictions import METRICS_NAME, PREDICTIONS_NAME
from medmamba_monai.metrics import PredictionTable

__all__ = ["Protocol", "Training", "cross_validate", "deal", "trainings"]


@dataclass(frozen=True)
class Protocol:
    """What is repeated.

    Attributes:
        folds: number of folds; 1: none, the bundle's own split.
        seeds: one training each, for every fold.
        validation: share of the images outside a fold that decides which weights are kept.
        parts: parts of the data set that are dealt out to folds.
    """

    folds: int
    seeds: Sequence[int]
    validation: float = 0.15
    parts: Sequence[SplitName] = SPLITS

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        content: dict[str, Any] = {"folds": self.folds, "seeds": list(self.seeds)}
        if self.folds > 1:
            content |= {"validation": self.validation, "parts": list(self.parts)}
        return content


@dataclass(frozen=True)
class Training:
    """One fold with one seed; fold 0 where there are no folds.

    Attributes:
        fold: number from 1.
        seed: of weights and augmentation.
        datalist: JSON file of the fold.
        place: where it writes.
    """

    fold: int
    seed: int
    datalist: Path
    place: RunPlace

    @property
    def name(self) -> str:
        """For people."""
        return f"fold {self.fold} seed {self.seed}" if self.fold else f"seed {self.seed}"


def deal(experiment: Experiment, protocol: Protocol) -> list[Datalist]:
    """The datalist of each fold, or the bundle's own where there are no folds.

    Raises:
        DataError: unusable data, a class too small for the folds, or parts that share patients or pictures where
            parts count.
        ConfigError: numbers that make no sense.
    """
    splits = experiment.splits
    if protocol.folds == 1:
        splits.refuse_leakage()
        return [splits.datalist]
    careful = not splits.allow_leakage
    if set(protocol.parts) == set(SPLITS):
        splits.allow_leakage = True  # given parts may share patients and pictures: they are dealt out anew, together
        pooled = splits.datalist
        splits.allow_leakage = not careful
    else:
        splits.refuse_leakage()
        pooled = splits.datalist
    copies = None
    if careful:
        files = [record["image"] for part in SPLITS for record in pooled.records(part)]
        copies = find_duplicates(splits.dataset_dir, files, cache_dir=splits.output_dir, progress=splits.progress)
    return deal_folds(
        pooled,
        protocol.folds,
        seed=int(experiment.settings["seed"]),
        validation=protocol.validation,
        parts=protocol.parts,
        copies=copies,
    )


def trainings(experiment: Experiment, protocol: Protocol, datalists: Sequence[Datalist]) -> list[Training]:
    """Write the datalists and list what is to be trained: all folds of the first seed, of the second, and so on."""
    found = []
    for seed in protocol.seeds:
        for number, datalist in enumerate(datalists, start=1):
            folder = experiment.folder if protocol.folds == 1 else experiment.folder / f"fold_{number}"
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / "datalist.json"
            datalist.save(file)
            fold = 0 if protocol.folds == 1 else number
            found.append(Training(fold, seed, file, RunPlace(folder / f"run_seed_{seed}")))
    return found


def settle_plan(experiment: Experiment, protocol: Protocol, datalists: Sequence[Datalist]) -> None:
    """Write down what is done in the folder, or refuse to mix it with what was done there before.

    Further seeds may be added, and keys may change that have no influence on results.

    Raises:
        ConfigError: naming what differs.
    """
    plan = {
        **{key: value for key, value in protocol.to_json().items() if key != "seeds"},
        "split_seed": int(experiment.settings["seed"]),
        "datalists": [datalist.digest for datalist in datalists],
    }
    experiment.settle(plan)


def cross_validate(
    experiment: Experiment,
    protocol: Protocol,
    parent: ParentRun,
    tell: Callable[[str], None],
    show: Callable[[str], None],
) -> dict[str, Any]:
    """Train and evaluate what is not yet done, then put all predictions together.

    Args:
        experiment: the bundle.
        protocol: folds and seeds.
        parent: MLflow run that the others are shown under; begun here, once the plan is not refused.
        tell: called with a line for each finished training.
        show: called with what changes while one is at work.

    Returns:
        The content of metrics.json.

    Raises:
        RunFailedError: a run failed; what was finished is kept.
        Interrupted: this process was sent a signal.
    """
    datalists = deal(experiment, protocol)
    settle_plan(experiment, protocol, datalists)
    parent.begin()
    tables, leakage = {}, None
    for training in trainings(experiment, protocol, datalists):
        before = finished(training.place.log("evaluate"))
        _run(experiment, training, parent, show)
        table = PredictionTable.read(training.place.results / PREDICTIONS_NAME, experiment.settings["task"])
        tables[training.fold, training.seed] = table
        report = json.loads((training.place.results / METRICS_NAME).read_text(encoding="utf-8"))
        leakage = leakage or report.get("leakage")
        value = report.get(name := experiment.settings["key_metric"])
        text = "undefined" if value is None else f"{value:.4f}"
        again = " (done before)" if before else ""
        tell(f"{training.name}: {name} {text} on {report['n']} test images{again}")
    return pool(tables, experiment.folder, protocol.to_json(), {} if leakage is None else {"leakage": leakage})


def _run(experiment: Experiment, training: Training, parent: ParentRun, show: Callable[[str], None]) -> None:
    options: Mapping[str, Any] = {"datalist": training.datalist, "seed": training.seed}
    experiment.train(
        training.place,
        {**options, **parent.child_options(training.name)},
        show=lambda line: show(f"{training.name}: {line}"),
    )
    show(f"{training.name}: evaluating")
    experiment.evaluate(training.place, {**options, **parent.child_options(f"{training.name}, test part")})
