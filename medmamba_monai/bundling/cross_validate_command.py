"""The command line verb ``cross_validate``. Imported by medmamba_monai.cli when the verb is used."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmamba_monai.bundling.experiment import Experiment, open_experiment, parse_overrides, require_bundle
from medmamba_monai.bundling.folder_lock import hold_folder
from medmamba_monai.bundling.live import Live, table
from medmamba_monai.bundling.parent_run import ParentRun
from medmamba_monai.bundling.subprocesses import INTERRUPTED, Interrupted
from medmamba_monai.data.entries import SPLITS
from medmamba_monai.errors import ConfigError

__all__ = ["TAKES_OVERRIDES", "add_arguments", "add_shared_arguments", "run"]

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    add_shared_arguments(parser, "cross_validation")
    parser.add_argument(
        "--folds", type=int, default=5, help="default: %(default)s; 1: no folds, the bundle's own split, for its seeds"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="a training each, for every fold; default: the key seed")
    parser.add_argument(
        "--validation",
        type=float,
        default=0.15,
        help="share of the images outside a fold that decides which weights are kept (default: %(default)s)",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=SPLITS,
        default=list(SPLITS),
        help="parts of the data set that are dealt out to folds; default: all, so that every image is tested once",
    )


def add_shared_arguments(parser: argparse.ArgumentParser, folder: str) -> None:
    """Declare what commands that train a bundle several times have in common.

    Args:
        parser: of the verb.
        folder: name of the default output folder.
    """
    parser.add_argument("bundle", type=Path, help="a folder of bundles/")
    parser.add_argument("--dataset_dir", type=Path, help="the images, as for training")
    parser.add_argument("--output_dir", type=Path, help=f"for all that is written; default: BUNDLE/eval/{folder}")
    parser.add_argument(
        "--config_file",
        type=Path,
        nargs="+",
        default=[],
        help="config files given after the bundle's own, such as a dataset_NAME.json",
    )
    parser.epilog = "Further --key value pairs are keys of the bundle, also nested ones (train#trainer#max_epochs)."
    parser.set_defaults(folder_name=folder)


def run(arguments: argparse.Namespace) -> int:
    """Train, evaluate, put together, and print a table; 75 when a signal ended it."""
    from medmamba_monai.bundling.cross_validation import Protocol, cross_validate

    if arguments.folds < 1:
        raise ConfigError(f"{arguments.folds} folds", where="--folds", remedy="give at least 2, or 1 for no folds")
    live = Live()
    with opened(arguments, ("split",)) as experiment:
        seeds = arguments.seeds or [int(experiment.settings["seed"])]
        if len(set(seeds)) < len(seeds):
            raise ConfigError(f"a seed is given twice: {seeds}", where="--seeds", remedy="give each once")
        if arguments.folds == 1 and len(seeds) == 1:
            raise ConfigError(
                "one split and one seed are one training", where="--folds 1", remedy="give several --seeds, or folds"
            )
        protocol = Protocol(arguments.folds, seeds, arguments.validation, arguments.parts)
        parent = ParentRun(
            experiment.folder,
            experiment.settings["tracking_uri"] if experiment.settings["mlflow"] else None,
            str(experiment.settings["experiment_name"]),
            f"{experiment.bundle.name}, {protocol_text(protocol.to_json())}",
            {"bundle": experiment.bundle.name, **experiment.recorded, **protocol.to_json()},
        )
        status = "FAILED"
        try:
            report = cross_validate(experiment, protocol, parent, live.tell, live.show)
            parent.log(_tracked(report))
            status = "FINISHED"
        except (Interrupted, KeyboardInterrupt) as reason:
            status = "KILLED"
            live.tell(str(reason) or "stopped; the same command goes on from here", seconds=False)
            return INTERRUPTED
        finally:
            names = ("metrics.json", "predictions.csv", "runs.csv", "plan.json")
            parent.finish(status, [experiment.folder / name for name in names])
    live.tell(told(report, experiment), seconds=False)
    return 0


class opened:
    """Hold the output folder and open the bundle; a context that gives the `Experiment`.

    Args:
        arguments: of `add_shared_arguments`, with ``overrides``.
        own_keys: keys of the bundle that the command sets.
    """

    def __init__(self, arguments: argparse.Namespace, own_keys: tuple[str, ...] = ()) -> None:
        self.arguments, self.own_keys = arguments, own_keys

    def __enter__(self) -> Experiment:
        given = self.arguments
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
        options = parse_overrides(given.overrides)
        if given.dataset_dir is not None:
            options["dataset_dir"] = str(given.dataset_dir)
        require_bundle(given.bundle)
        folder = (given.output_dir or given.bundle / "eval" / given.folder_name).resolve()
        self._hold = hold_folder(folder)
        held = self._hold.__enter__()
        try:
            return open_experiment(given.bundle, folder, options, given.config_file, held, self.own_keys)
        except BaseException:
            self._hold.__exit__(None, None, None)
            raise

    def __exit__(self, *reason: Any) -> None:
        self._hold.__exit__(*reason)


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """The protocol in a few words.

    Example:
        >>> protocol_text({"folds": 5, "seeds": [0]}), protocol_text({"folds": 1, "seeds": [0, 1]})
        ('5 folds', '2 seeds')
    """
    folds, seeds = protocol["folds"], len(protocol["seeds"])
    parts = [f"{folds} folds"] if folds > 1 else []
    return ", ".join([*parts, *([f"{seeds} seeds"] if seeds > 1 else [])])


def told(report: Mapping[str, Any], experiment: Experiment) -> str:
    """The result as people read it: a row for each fold and seed, their spread, the pooled scores, places."""
    key = str(experiment.settings["key_metric"])
    names = list(dict.fromkeys([key, "accuracy", "balanced_accuracy", "auc", "f1"]))
    names = [name for name in names if name in report]
    spread = report["spread"]
    rows = [["", *names]]
    for kind in ("folds", "seeds"):
        if spread[kind]:
            rows += [[f"{kind[:-1]} {row[kind[:-1]]}", *(_number(row[n]) for n in names)] for row in report[kind]]
            rows += [[f"{kind}, mean ± sd", *(_mean(spread[kind][name]) for name in names)]]
    ensemble = f"ensemble of {len(report['seeds'])} seeds" if len(report["seeds"]) > 1 else ""
    pooled = "pooled folds" if spread["folds"] else ""
    rows.append([", ".join(filter(None, [pooled, ensemble])), *(_number(report[name]) for name in names)])
    intervals = report.get("intervals") or {}
    if any(intervals.get(name) for name in names):
        rows.append(["95 % interval", *(_interval(intervals.get(name)) for name in names)])
    lines = ["", table(rows), "", f"{report['n']} images were tested. sd is no confidence interval: see metrics.json."]
    lines += [f"wrote {experiment.folder / name}" for name in ("metrics.json", "predictions.csv", "runs.csv")]
    return "\n".join(lines)


def _tracked(report: Mapping[str, Any]) -> dict[str, float | None]:
    """What the parent run records: pooled scores by name, mean and sd over folds and seeds."""
    from medmamba_monai.metrics.pooling import score_values

    found: dict[str, float | None] = {f"pooled_{name}": value for name, value in score_values(report).items()}
    for kind in ("folds", "seeds"):
        for name, entry in (report["spread"][kind] or {}).items():
            found |= {f"{kind}_mean_{name}": entry["mean"], f"{kind}_sd_{name}": entry["sd"]}
    return found


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _mean(entry: Mapping[str, Any]) -> str:
    return "undefined" if entry["mean"] is None else f"{entry['mean']:.4f} ± {entry['sd']:.4f}"


def _interval(bounds: Any) -> str:
    return "undefined" if bounds is None else f"[{bounds[0]:.4f}, {bounds[1]:.4f}]"
