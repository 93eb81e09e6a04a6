"""Several trainings of one bundle in one folder: its settings read once, each run in a process of its own.

What cross-validation, repeated seeds and tuning share. Imports the bundle's run-time parts; needs monai.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.bundling.source import sha256_of
from medmamba_monai.bundling.splits import Splits
from medmamba_monai.bundling.subprocesses import (
    INTERRUPTED,
    Child,
    Interrupted,
    RunFailedError,
    bundle_arguments,
    finished,
    last_error,
    run_bundle,
)
from medmamba_monai.data.duplicates import CACHE_NAME
from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers.checkpoint import CHECKPOINT_NAME
from medmamba_monai.handlers.checkpoint_folder import previous_name
from medmamba_monai.handlers.files import write_json

__all__ = ["Experiment", "RunPlace", "open_experiment", "parse_overrides", "require_bundle"]

OWN_KEYS = frozenset(
    {"bundle_root", "ckpt_dir", "output_dir", "resume", "run_name", "parent_run_id", "save_execute_config", "exported"}
)
"""What these commands set by themselves."""

NEUTRAL = frozenset(
    {"device", "num_workers", "cache_rate", "cache_num", "progress", "mlflow", "tracking_uri", "experiment_name"}
    | {"report", "explain_examples", "log_model", "system_metrics"}
)
"""What may change when a command is repeated: it has no influence on what is computed."""

TRAINED = ("image_size", "class_names", "task", "allow_leakage", "preset")
"""What an evaluation reads from model.json."""

PLAN_NAME = "plan.json"
PLAN_FORMAT = 1
IS_FINISHED = "the training is finished"


@dataclass(frozen=True)
class RunPlace:
    """Where one training and its evaluation write.

    Attributes:
        folder: for this run alone.
    """

    folder: Path

    @property
    def weights(self) -> Path:
        """The training's ckpt_dir."""
        return self.folder / "models"

    @property
    def results(self) -> Path:
        """The output_dir."""
        return self.folder / "eval"

    def log(self, mode: str) -> Path:
        """File with what a run printed."""
        return self.folder / f"{mode}.log"


@dataclass(frozen=True)
class Experiment:
    """A bundle with the settings that all its runs share.

    Attributes:
        bundle: its folder.
        folder: of all that is written.
        options: keys to override, as given.
        further: config files given after those of the bundle.
        splits: the data of the bundle's own run.
        settings: values of the config's keys that matter here: task, key_metric, seed, epochs, mlflow, tracking_uri and
            experiment_name.
        config: the training's config, unresolved.
        held: file descriptors of the hold on ``folder``, for the runs.
    """

    bundle: Path
    folder: Path
    options: Mapping[str, Any]
    further: Sequence[Path]
    splits: Splits
    settings: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    held: Sequence[int] = field(default=())

    @property
    def recorded(self) -> dict[str, Any]:
        """The options for the record, without the tracking server's address: it may hold a password."""
        return {key: value for key, value in self.options.items() if key != "tracking_uri"}

    @property
    def environment(self) -> dict[str, str]:
        """What runs are told beside their command line, which is for all to see: the tracking server's address."""
        if not self.settings["mlflow"] or os.environ.get("MLFLOW_TRACKING_URI"):
            return {}  # what this process has in its environment reaches them by itself
        return {"MLFLOW_TRACKING_URI": str(self.settings["tracking_uri"])}

    def place_list(self, place: RunPlace) -> None:
        """Give a run what is known of copies among the images, lest each run read all of them again."""
        known = Path(self.splits.output_dir) / CACHE_NAME
        place.results.mkdir(parents=True, exist_ok=True)
        if known.is_file() and not (place.results / CACHE_NAME).exists():
            shutil.copyfile(known, place.results / CACHE_NAME)

    def settle(self, plan: Mapping[str, Any]) -> None:
        """Write down what is done in the folder, or refuse to mix it with what was done there before.

        Args:
            plan: what may not change, besides bundle, keys and config files.

        Raises:
            ConfigError: naming what differs.
        """
        options = {key: value for key, value in sorted(self.options.items()) if key not in NEUTRAL}
        content = {"format": PLAN_FORMAT, "bundle": self.bundle.name, **plan, "options": options}
        content = json.loads(json.dumps({**content, "config_files": self.further}, default=str))
        used = [self.bundle / "configs" / f"{name}.json" for name in ("train", "evaluate")] + list(self.further)
        content["contents"] = {file.name: sha256_of(file) for file in used if file.is_file()}
        file = self.folder / PLAN_NAME
        if file.is_file():
            earlier = json.loads(file.read_text(encoding="utf-8"))
            before = earlier.setdefault("contents", content["contents"])
            edited = [name for name, digest in before.items() if content["contents"].get(name) != digest]
            if edited:
                raise ConfigError(
                    f"{edited[0]} was changed since, so its runs would not be alike",
                    where=str(file),
                    remedy="restore it to go on, or choose another --output_dir",
                )
            changed = [key for key in {**earlier, **content} if earlier.get(key) != content.get(key)]
            if changed:
                raise ConfigError(
                    f"{changed[0]} was {earlier.get(changed[0])} and is {content.get(changed[0])} now",
                    where=str(file),
                    remedy="repeat the same command to go on, or choose another --output_dir",
                )
        write_json(file, content)

    def arguments(self, mode: str, place: RunPlace, options: Mapping[str, Any]) -> list[str]:
        """What stands behind ``python -m monai.bundle`` for one run.

        Args:
            mode: "train" or "evaluate".
            place: of the run.
            options: keys of this run, which go before those of all runs.
        """
        first = {"log_model": False} if mode == "train" else {}  # a model a fold or trial would fill the disk
        given = {**first, **self.recorded, **options, "ckpt_dir": place.weights, "output_dir": place.results}
        if mode == "evaluate":
            given = {key: value for key, value in given.items() if key not in TRAINED and not _of_network(key)}
        return bundle_arguments(self.bundle, mode, given, self.further)

    def train(
        self,
        place: RunPlace,
        options: Mapping[str, Any],
        *,
        watch: Callable[[Child], None] | None = None,
        show: Callable[[str], None] | None = None,
    ) -> int:
        """Train, or go on with a training that was interrupted; one that is finished is left alone.

        Returns:
            0, or 75 where ``watch`` stopped it.

        Raises:
            RunFailedError: naming the log.
            Interrupted: this process was sent a signal.
        """
        log = place.log("train")
        if finished(log):
            return 0
        self.place_list(place)
        state = place.weights / CHECKPOINT_NAME
        code = self._run("train", place, {**options, "resume": state.is_file()}, watch, show)
        if code not in (0, INTERRUPTED) and state.is_file() and IS_FINISHED in last_error(log):
            # killed between its last state and its end: the last epoch is trained again, or all where there was one
            before = state.with_name(previous_name(state.name))
            resume: bool | str = str(before) if before.is_file() else False
            code = self._run("train", place, {**options, "resume": resume}, watch, show)
        return self._checked(code, log, watch is not None)

    def evaluate(self, place: RunPlace, options: Mapping[str, Any]) -> None:
        """Evaluate a training's best weights on the test part; once.

        Raises:
            RunFailedError: naming the log.
            Interrupted: this process was sent a signal.
        """
        log = place.log("evaluate")
        if not finished(log):
            self._checked(self._run("evaluate", place, options, None, None), log, False)

    def _run(
        self,
        mode: str,
        place: RunPlace,
        options: Mapping[str, Any],
        watch: Callable[[Child], None] | None,
        show: Callable[[str], None] | None,
    ) -> int:
        arguments = self.arguments(mode, place, options)
        return run_bundle(
            arguments,
            place.log(mode),
            watch=watch,
            show=show,
            keep_open=self.held,
            environment=self.environment,
        )

    def _checked(self, code: int, log: Path, may_stop: bool) -> int:
        if code == 0:
            return code
        if may_stop and code in (INTERRUPTED, -signal.SIGTERM):  # the latter before the first epoch or after the last
            return INTERRUPTED
        if code in (INTERRUPTED, -signal.SIGTERM, -signal.SIGINT):
            raise Interrupted("the run was stopped from outside", where=str(log), remedy="the same command goes on")
        raise RunFailedError(
            f"the run failed with status {code}: {last_error(log)}",
            where=str(log),
            remedy="the log says more; what was finished before is kept, and the same command goes on from there",
        )


def _of_network(key: str) -> bool:
    """Whether a key changes the network that model.json describes to an evaluation."""
    return key.startswith(("network_def#", "network_def::"))


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Read ``--key value`` and ``--key=value`` as the command line of ``monai.bundle`` does.

    Raises:
        ConfigError: a word that is no key, or a key without a value.

    Example:
        >>> parse_overrides(["--epochs", "3", "--train#trainer#max_epochs=4", "--image_size", "[32,40]"])
        {'epochs': 3, 'train#trainer#max_epochs': 4, 'image_size': [32, 40]}
    """
    from fire.parser import DefaultParseValue

    options: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise ConfigError(f"{word!r} is no key", where="arguments", remedy="give keys as --key value")
        if not equals:
            if not rest or (rest[0].startswith("--") and not rest[0][2:3].isdigit()):
                raise ConfigError(f"--{key} has no value", where="arguments", remedy=f"give --{key} VALUE")
            value = rest.pop(0)
        options[key.replace("-", "_")] = DefaultParseValue(value)
    return options


def require_bundle(bundle: Path) -> None:
    """Refuse a folder that is no bundle, before anything is written.

    Raises:
        ConfigError: there is no configs/train.json.
    """
    if not (bundle / "configs" / "train.json").is_file():
        raise ConfigError("there is no configs/train.json", where=str(bundle), remedy="give the folder of a bundle")


def open_experiment(
    bundle: Path,
    folder: Path,
    options: Mapping[str, Any],
    further: Iterable[Path] = (),
    held: Sequence[int] = (),
    own_keys: Iterable[str] = (),
) -> Experiment:
    """Read a bundle's settings as its training would, and check the overrides before anything is run.

    Args:
        bundle: its folder.
        folder: for all that is written.
        options: keys to override.
        further: config files given after those of the bundle.
        held: see `Experiment`.
        own_keys: keys that the command sets besides those that all such commands do.

    Raises:
        ConfigError: no bundle, an unknown key, or one that the command sets.
    """
    require_bundle(bundle)
    for key in options:
        if key in OWN_KEYS or key in own_keys:
            raise ConfigError(f"{key} is set by this command", where="override", remedy=f"leave --{key} out")
    bundle, folder, files = bundle.resolve(), folder.resolve(), [Path(file).resolve() for file in further]
    pool = folder / "data"
    content = _content(bundle, files, {**options, "output_dir": str(pool), "ckpt_dir": str(folder / "models")})
    settings = content["settings"]
    if content["default_uri"] == settings["tracking_uri"]:
        from medmamba_monai.handlers import default_tracking_uri

        settings["tracking_uri"] = default_tracking_uri(folder)
    absolute = {"dataset_dir": str(Path(content["splits"].dataset_dir).absolute())}
    return Experiment(
        bundle, folder, {**options, **absolute}, files, content["splits"], settings, content["config"], held
    )


def _content(bundle: Path, files: Sequence[Path], overrides: Mapping[str, Any]) -> dict[str, Any]:
    from monai.bundle import ConfigWorkflow

    from medmamba_monai.handlers import default_tracking_uri

    names = ("task", "key_metric", "seed", "epochs", "mlflow", "tracking_uri", "experiment_name")
    try:
        configs = [str(bundle / "configs" / "train.json"), *map(str, files)]
        logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # warns that it sets no logging up
        workflow = ConfigWorkflow(configs, workflow_type="train", logging_file=False, **overrides)
        workflow.initialize()
        parser = workflow.parser
        return {
            "config": parser.get(),
            "splits": parser.get_parsed_content("splits"),
            "settings": {name: parser.get_parsed_content(name) for name in names},
            "default_uri": default_tracking_uri(str(overrides["output_dir"])),
        }
    except Exception as error:
        reason = root_cause(error)
        if reason is None and isinstance(error, (OSError, ValueError, KeyError, IndexError)):
            raise ConfigError(
                f"the bundle's config cannot be read with these files and keys: {error}",
                where=str(bundle),
                remedy="check --config_file and keys with # or ::",
            ) from error
        if reason is None or reason is error:
            raise
        raise reason from error
