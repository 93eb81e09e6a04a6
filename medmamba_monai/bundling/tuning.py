"""A search over keys of a bundle: trials one by one, each a training of its own, chosen by the validation part.

Imports handlers, metrics and the other parts of bundling; Optuna where it is used.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medmamba_monai.bundling.experiment import Experiment, RunPlace
from medmamba_monai.bundling.parent_run import ParentRun
from medmamba_monai.bundling.search_space import Dimension, suggest
from medmamba_monai.bundling.subprocesses import INTERRUPTED, Child, Interrupted, RunFailedError
from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers.checkpoint import CHECKPOINT_NAME, MODEL_NAME
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder, previous_name
from medmamba_monai.handlers.files import write_atomic, write_json
from medmamba_monai.handlers.history import HISTORY_NAME, read_history
from medmamba_monai.handlers.mlflow_client import sqlite_uri
from medmamba_monai.metrics import score_mode

__all__ = ["PRUNERS", "Search", "best_trial", "finished_trials", "open_study", "require_optuna", "tune", "write_trials"]

PRUNERS = ("median", "halving", "none")
STUDY_NAME = "study.db"
MOST_FAILURES = 3  # in a row


@dataclass(frozen=True)
class Search:
    """How is searched.

    Attributes:
        space: keys and their values.
        trials: how many are tried, counted over all commands in the folder.
        seed: of what is drawn.
        pruner: one of `PRUNERS`.
    """

    space: Sequence[Dimension]
    trials: int
    seed: int = 0
    pruner: str = "median"


def require_optuna() -> Any:
    """Import Optuna.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("Optuna is not installed", remedy="pip install 'medmamba_monai[tune]'") from error
    return optuna


def open_study(folder: Path, search: Search, mode: str, epochs: int) -> Any:
    """Open the Optuna study in a folder, or begin it.

    Args:
        folder: of study.db.
        search: how is searched.
        mode: "max" or "min", of the score.
        epochs: of a trial.

    Raises:
        ConfigError: Optuna is not installed.
    """
    optuna = require_optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # scores of the first epochs, with a rising learning rate, say little
    pruner: Any = optuna.pruners.NopPruner()
    if search.pruner == "median":
        pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(2, epochs // 4))
    elif search.pruner == "halving":
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=max(2, epochs // 9), reduction_factor=3)
    return optuna.create_study(
        study_name="tune",
        storage=sqlite_uri(folder / STUDY_NAME),
        direction="maximize" if mode == "max" else "minimize",
        pruner=pruner,
        load_if_exists=True,
    )


def tune(
    experiment: Experiment,
    search: Search,
    parent: ParentRun,
    tell: Callable[[str], None],
    show: Callable[[str], None],
) -> Any:
    """Run the trials that are lacking.

    A trial that a kill left unfinished is marked failed and tried again under a new number with the same values, from
    its last training state where there is one. What is drawn depends on the seed and the trials before alone, so a
    search that was interrupted finds what an uninterrupted one would have found.

    Args:
        experiment: the bundle, its data looked at already (`Splits.refuse_leakage`).
        search: what is tried.
        parent: MLflow run that the trials are shown under, begun.
        tell: called with a line for each trial.
        show: called with what changes while one is at work.

    Returns:
        The Optuna study.

    Raises:
        RunFailedError: the first trial failed, or several in a row.
        Interrupted: this process was sent a signal.
        ConfigError: Optuna is not installed.
    """
    settings = experiment.settings
    mode = score_mode(str(settings["key_metric"]))
    datalist = experiment.folder / "datalist.json"
    experiment.splits.datalist.save(datalist)
    study = open_study(experiment.folder, search, mode, int(settings["epochs"]))
    _take_up_interrupted(study)
    while len(finished_trials(study)) < search.trials:
        trial, index = _ask(study, search)
        line = _Trial(experiment, study, trial, index, datalist).run(search, parent, show)
        write_trials(study, experiment.folder)
        parent.log({"trial_score": _value(study, trial.number)}, step=index)
        tell(line)
        _refuse_failures(study)
    write_trials(study, experiment.folder)  # a kill may have come between the last trial's end and its row
    return study


def finished_trials(study: Any) -> list[Any]:
    """Trials that ended by themselves, also badly, by number; without those that were tried again."""
    again = {trial.user_attrs.get("continues") for trial in study.trials}
    return [trial for trial in study.trials if trial.state.is_finished() and trial.number not in again]


def _take_up_interrupted(study: Any) -> None:
    from optuna.trial import TrialState

    again = {trial.user_attrs.get("continues") for trial in study.trials}
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if trial.number not in again:  # else a kill came between the two steps
            # a kill while values were drawn: all are drawn again, by the same seed
            params = trial.params if "overrides" in trial.user_attrs else {}
            attributes = {"index": _index(study, trial), "continues": trial.number}
            study.enqueue_trial(params, user_attrs=attributes)
        study.tell(trial.number, state=TrialState.FAIL)


def _ask(study: Any, search: Search) -> tuple[Any, int]:
    """The next trial, with its place in the order of what was drawn."""
    import optuna

    trial = study.ask()
    index = _index(study, trial)
    trial.set_user_attr("index", index)
    seed = int(np.random.SeedSequence([search.seed, index]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=seed)  # in time: values are drawn when they are asked for
    return trial, index


def _index(study: Any, trial: Any) -> int:
    """Place of a trial among those that do not go on with another; also where a kill came before it was noted."""
    if "index" in trial.user_attrs:
        return int(trial.user_attrs["index"])
    return sum("continues" not in earlier.user_attrs for earlier in study.trials[: trial.number])


class _Trial:
    """One training, watched epoch by epoch."""

    def __init__(self, experiment: Experiment, study: Any, trial: Any, index: int, datalist: Path) -> None:
        self.experiment, self.study, self.trial, self.index, self.datalist = experiment, study, trial, index, datalist
        self.place = RunPlace(experiment.folder / f"trial_{index:03d}")
        self.metric = f"val_{experiment.settings['key_metric']}"
        self.pruned = False
        self._seen: set[int] = set()
        self._changed = 0

    def run(self, search: Search, parent: ParentRun, show: Callable[[str], None]) -> str:
        """Train, tell the study, and return a line on it."""
        from optuna.trial import TrialState

        continues = self.trial.user_attrs.get("continues")
        if continues is not None:
            for epoch, value in self.study.trials[continues].intermediate_values.items():
                self._report(epoch, value)
        overrides = suggest(self.trial, search.space)
        self.trial.set_user_attr("overrides", overrides)
        name = f"trial {self.index}"
        options = {**overrides, "datalist": self.datalist, **parent.child_options(name)}
        values = ", ".join(f"{key} {_short(value)}" for key, value in overrides.items())
        try:
            code = self.experiment.train(
                self.place, options, watch=self.watch, show=lambda line: show(f"{name}: {line}")
            )
        except RunFailedError as error:
            self.trial.set_user_attr("error", str(error))
            self.study.tell(self.trial, state=TrialState.FAIL)
            return f"{name}: failed, see {self.place.log('train')} ({values})"
        if code == INTERRUPTED and not self.pruned:
            raise Interrupted("a trial was stopped from outside", remedy="the same command goes on from here")
        self._read_scores()
        best = self._best()
        if code == INTERRUPTED:
            self.study.tell(self.trial, state=TrialState.PRUNED)
            outcome = f"pruned after epoch {max(self._seen)}"
        elif best is None:
            self.trial.set_user_attr("error", "no validation gave a defined score")
            self.study.tell(self.trial, state=TrialState.FAIL)
            outcome = "failed, no validation gave a defined score"
        else:
            self.study.tell(self.trial, best)
            outcome = f"{self.metric} {best:.4f}"
        for state in (CHECKPOINT_NAME, previous_name(CHECKPOINT_NAME)):  # never resumed again, and three times as big
            (self.place.weights / state).unlink(missing_ok=True)
        return f"{name}: {outcome} ({values})"

    def watch(self, child: Child) -> None:
        """Hand new scores to the study, and stop the training where it is not worth its time."""
        if not self.pruned and self._read_scores() and self.trial.should_prune():
            self.pruned = True
            child.stop()

    def _read_scores(self) -> bool:
        history = self.place.results / HISTORY_NAME
        try:
            changed = history.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if changed == self._changed:
            return False
        self._changed = changed
        new = False
        for row in read_history(history):
            epoch, value = int(row["epoch"] or 0), row.get(self.metric)
            if epoch not in self._seen and value is not None and np.isfinite(value):
                self._report(epoch, value)
                new = True
        return new and max(self._seen) < int(self.experiment.settings["epochs"])

    def _report(self, epoch: int, value: float) -> None:
        self._seen.add(epoch)
        self.trial.report(value, epoch)

    def _best(self) -> float | None:
        """Validation score of the weights that were kept."""
        value = CheckpointFolder(self.place.weights).index().get(MODEL_NAME, {}).get("value")
        return None if value is None else float(value)


def _value(study: Any, number: int) -> float | None:
    value = study.trials[number].value
    return None if value is None else float(value)


def _refuse_failures(study: Any) -> None:
    ended = finished_trials(study)
    last = ended[-MOST_FAILURES:]
    if all("error" in trial.user_attrs for trial in last) and (len(ended) == 1 or len(last) == MOST_FAILURES):
        what = "the first trial failed" if len(ended) == 1 else f"{MOST_FAILURES} trials in a row failed"
        raise RunFailedError(
            f"{what}: {last[-1].user_attrs['error']}", remedy="correct the space or the keys; then search anew"
        )


def write_trials(study: Any, folder: Path) -> None:
    """Write trials.csv, a row for each trial, and, where one ended well, best.json, a config file with its values."""
    trials = finished_trials(study)
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", "state", "score", "epochs", "seconds", *keys])
    for trial in trials:
        overrides = trial.user_attrs.get("overrides", {})
        seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.1f}"
        score = "" if trial.value is None else repr(trial.value)
        head = [trial.user_attrs.get("index"), trial.state.name.lower(), score, trial.last_step or 0, seconds]
        table.writerow([*head, *(overrides.get(key, "") for key in keys)])
    write_atomic(folder / "trials.csv", lambda stream: stream.write(text.getvalue().encode("utf-8")))
    if (best := best_trial(study)) is not None:
        write_json(folder / "best.json", best.user_attrs["overrides"])


def best_trial(study: Any) -> Any:
    """The trial with the best score, the first of equals; None where none ended well."""
    from optuna.trial import TrialState

    complete = [trial for trial in finished_trials(study) if trial.state == TrialState.COMPLETE]
    sign = 1 if study.direction.name == "MAXIMIZE" else -1
    return max(complete, key=lambda trial: sign * trial.value, default=None)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
