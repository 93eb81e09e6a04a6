"""What several trainings of one bundle say together: pooled predictions, pooled metrics, and their spread.

Imports handlers and metrics.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmamba_monai.handlers import PredictionWriter
from medmamba_monai.handlers.files import write_atomic
from medmamba_monai.handlers.predictions import METRICS_NAME, PREDICTIONS_NAME, Prediction
from medmamba_monai.metrics import PredictionTable, evaluation_of, report_of
from medmamba_monai.metrics.pooling import average_tables, join_tables, score_values, spread_of

__all__ = ["Tables", "pool", "write_table"]

Tables = Mapping[tuple[int, int], PredictionTable]
"""Predictions of each training's test part by (fold from 1, seed); fold 0 where there are no folds."""

NOTE = (
    "sd is the sample standard deviation over trainings: how much scores change with the split or the seed. It is no "
    "confidence interval: folds share training images, and seeds share all of them"
)


def write_table(table: PredictionTable, folder: Path, remarks: Mapping[str, Any], fold_of: Mapping[str, int]) -> None:
    """Write predictions.csv and metrics.json as an evaluation does.

    Args:
        table: with labels.
        folder: of both files.
        remarks: what is to stand in metrics.json besides the metrics.
        fold_of: file → fold, for a last column "fold"; empty: there is no such column.
    """
    groups = {} if table.groups is None else dict(zip(table.files, table.groups, strict=True))
    groups = {file: "" if group == file else group for file, group in groups.items()}
    writer = PredictionWriter(
        folder, table.class_names, evaluation_of(table.task), task=table.task, remarks=remarks, groups=groups
    )
    folder.mkdir(parents=True, exist_ok=True)
    writer.write(_predictions(table, groups))
    if fold_of:
        _add_folds(folder / PREDICTIONS_NAME, fold_of)


def pool(
    tables: Tables, folder: Path, protocol: Mapping[str, Any], remarks: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the pooled predictions and metrics of all trainings.

    ``predictions.csv`` has one row for each image that was tested: probabilities are the mean over the seeds, an
    ensemble. ``metrics.json`` has their metrics and, besides, ``protocol``, ``runs`` (scores of each training),
    ``folds`` and ``seeds`` (scores of each fold's ensemble, of each seed's pooled folds) and ``spread`` (their mean
    and standard deviation). With several seeds ``seed_N/`` holds both files for each seed alone.

    Args:
        tables: predictions of every training.
        folder: for the files.
        protocol: how it was done.
        remarks: what else is to stand in metrics.json.

    Returns:
        The content of metrics.json.
    """
    folds, seeds = sorted({fold for fold, _ in tables}), sorted({seed for _, seed in tables})
    fold_of = {file: fold for fold in folds if fold for file in tables[fold, seeds[0]].files}
    each_seed = {seed: join_tables([tables[fold, seed] for fold in folds]) for seed in seeds}
    each_fold = {fold: average_tables([tables[fold, seed] for seed in seeds]) for fold in folds}
    runs = [{"fold": fold, "seed": seed, **scores_of(tables[fold, seed])} for fold in folds for seed in seeds]
    by_fold = [{"fold": fold, "n": len(table.files), **scores_of(table)} for fold, table in each_fold.items()]
    by_seed = [{"seed": seed, **scores_of(table)} for seed, table in each_seed.items()]
    spread = {"note": NOTE, "folds": _spread(by_fold) if len(folds) > 1 else None}
    spread["seeds"] = _spread(by_seed) if len(seeds) > 1 else None
    if len(seeds) > 1:
        for seed, table in each_seed.items():
            write_table(table, folder / f"seed_{seed}", {"protocol": {**protocol, "seeds": [seed]}}, fold_of)
    said = {"protocol": dict(protocol), "runs": runs, "folds": by_fold, "seeds": by_seed, "spread": spread}
    write_table(average_tables(list(each_seed.values())), folder, {**said, **(remarks or {})}, fold_of)
    _write_runs(folder / "runs.csv", runs)
    content: dict[str, Any] = json.loads((folder / METRICS_NAME).read_text(encoding="utf-8"))
    return content


def scores_of(table: PredictionTable) -> dict[str, float | None]:
    """The scores over all classes of one table, without intervals."""
    if table.labels is None:
        raise ValueError("scores need labels")
    return score_values(report_of(table.task)(table.labels.tolist(), table.probabilities, table.class_names))


def _spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = [name for name in rows[0] if name not in ("fold", "seed", "n")]
    return {name: spread_of([row.get(name) for row in rows]) for name in names}


def _predictions(table: PredictionTable, groups: Mapping[str, str]) -> list[Prediction]:
    labels = [] if table.labels is None else table.labels.tolist()
    return [
        Prediction(
            file,
            tuple(label) if isinstance(label, list) else int(label),
            tuple(float(value) for value in probabilities),
            groups.get(file, ""),
        )
        for file, label, probabilities in zip(table.files, labels, table.probabilities, strict=True)
    ]


def _add_folds(path: Path, fold_of: Mapping[str, int]) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*header, "fold"])
    table.writerows([*row, fold_of[row[0]]] for row in rows)
    write_atomic(path, lambda stream: stream.write(text.getvalue().encode("utf-8")))


def _write_runs(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(runs[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(runs)
    write_atomic(path, lambda stream: stream.write(text.getvalue().encode("utf-8")))
