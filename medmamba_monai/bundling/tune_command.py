"""The command line verb ``tune``. Imported by medmamba_monai.cli when the verb is used."""

from __future__ import annotations

import argparse
import json
from typing import Any

from medmamba_monai.bundling.cross_validate_command import add_shared_arguments, opened
from medmamba_monai.bundling.experiment import Experiment
from medmamba_monai.bundling.live import Live, table
from medmamba_monai.bundling.parent_run import ParentRun
from medmamba_monai.bundling.search_space import check_keys, parse_space
from medmamba_monai.bundling.subprocesses import INTERRUPTED, Interrupted, bundle_arguments, shown_command
from medmamba_monai.bundling.tuning import PRUNERS, Search, best_trial, finished_trials, require_optuna, tune
from medmamba_monai.errors import ConfigError

__all__ = ["TAKES_OVERRIDES", "add_arguments", "run"]

TAKES_OVERRIDES = True
SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    add_shared_arguments(parser, "tuning")
    parser.add_argument(
        "--space",
        required=True,
        help='JSON or a file of it: {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": true}, "ema": [true, false]}',
    )
    parser.add_argument("--trials", type=int, default=20, help="in all, also those of earlier commands (default: 20)")
    parser.add_argument("--pruner", choices=PRUNERS, default="median", help="what ends bad trials early")
    parser.add_argument("--sampler_seed", type=int, default=0, help="seed of the values that are drawn (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    """Search, and print the best trials and the command to train with; 75 when a signal ended it."""
    if arguments.trials < 1:
        raise ConfigError(f"{arguments.trials} trials", where="--trials", remedy="give at least 1")
    require_optuna()
    space = parse_space(arguments.space)
    search = Search(space, arguments.trials, arguments.sampler_seed, arguments.pruner)
    live = Live()
    with opened(arguments, ("split",)) as experiment:
        settings = experiment.settings
        check_keys(space, experiment.config, list(experiment.options))
        experiment.splits.refuse_leakage()  # before the plan is settled: data that cannot be used are no plan
        plan = {"space": json.loads(_space_text(search)), "sampler_seed": search.seed, "pruner": search.pruner}
        experiment.settle({**plan, "split_seed": int(settings["seed"]), "key_metric": settings["key_metric"]})
        parent = ParentRun(
            experiment.folder,
            settings["tracking_uri"] if settings["mlflow"] else None,
            str(settings["experiment_name"]),
            f"{experiment.bundle.name}, tuning",
            {"bundle": experiment.bundle.name, **experiment.recorded, **plan},
        )
        parent.begin()
        status = "FAILED"
        try:
            study = tune(experiment, search, parent, live.tell, live.show)
            _record(study, parent)
            status = "FINISHED"
        except (Interrupted, KeyboardInterrupt) as reason:
            status = "KILLED"
            live.tell(str(reason) or "stopped. Remedy: the same command goes on from here", seconds=False)
            return INTERRUPTED
        finally:
            names = ("trials.csv", "best.json", "plan.json")
            parent.finish(status, [experiment.folder / name for name in names])
        live.tell(told(study, experiment), seconds=False)
    return 0


def _space_text(search: Search) -> str:
    return json.dumps({item.key: item.__dict__ for item in search.space}, default=str)


def _record(study: Any, parent: ParentRun) -> None:
    best = best_trial(study)
    trials = finished_trials(study)
    states = [trial.state.name.lower() for trial in trials]
    counts: dict[str, float | None] = {f"trials_{name}": states.count(name) for name in ("complete", "pruned", "fail")}
    if best is not None:
        parent.log({"best_score": best.value, "best_trial": best.user_attrs["index"]})
        parent.log(tags={f"best.{key}": value for key, value in best.user_attrs["overrides"].items()})
    parent.log(counts)


def told(study: Any, experiment: Experiment) -> str:
    """The best trials, what their score is worth, and the command to train with the best values."""
    best = best_trial(study)
    trials = finished_trials(study)
    score = f"val_{experiment.settings['key_metric']}"
    if best is None:
        return f"no trial of {len(trials)} ended well; see {experiment.folder / 'trials.csv'}"
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    ranked = sorted((trial for trial in trials if trial.state.name == "COMPLETE"), key=lambda trial: sign * trial.value)
    keys = list(best.user_attrs["overrides"])
    rows = [["trial", score, *keys]]
    for trial in ranked[:SHOWN]:
        values = [str(trial.user_attrs["overrides"].get(key, "")) for key in keys]
        rows.append([str(trial.user_attrs["index"]), f"{trial.value:.4f}", *values])
    states = [trial.state.name for trial in trials]
    folder = experiment.folder
    fixed = {key: value for key, value in experiment.recorded.items() if key != "datalist"}
    fixed |= {"datalist": folder / "datalist.json"}
    fixed |= {"ckpt_dir": folder / "best" / "models", "output_dir": folder / "best" / "eval"}
    files = [*experiment.further, folder / "best.json"]
    return "\n".join(
        [
            "",
            f"{len(trials)} trials: {states.count('COMPLETE')} complete, {states.count('PRUNED')} pruned, "
            f"{states.count('FAIL')} failed",
            table(rows),
            "",
            f"{score} {best.value:.4f} is the best of {len(trials)} on the same validation part, so it is optimistic. "
            "The test part was not looked at: evaluate the chosen weights on it once.",
            f"weights of the best trial: {folder / 'trial_{:03d}'.format(best.user_attrs['index']) / 'models'}",
            f"wrote {folder / 'best.json'}, {folder / 'trials.csv'}; all scores: {folder / 'study.db'}",
            "train with its values:",
            f"  {shown_command(bundle_arguments(experiment.bundle, 'train', fixed, files))}",
        ]
    )
