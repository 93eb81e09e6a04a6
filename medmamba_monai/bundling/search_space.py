"""What a search tries: keys of a bundle with ranges or choices. Imports errors and the table of keys."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medmamba_monai.bundling.keys import KEYS, KINDS
from medmamba_monai.bundling.merge import nearest
from medmamba_monai.errors import ConfigError

__all__ = ["Dimension", "check_keys", "parse_space", "suggest"]

KEPT = frozenset(
    {
        *("dataset_dir", "datalist", "class_names", "layout", "download", "task", "uncertain_labels", "allow_leakage"),
        *("split", "key_metric", "seed", "val_interval", "device", "progress", "mlflow", "tracking_uri"),
        *("experiment_name", "epochs", "max_epochs", "total_steps", "data", "splits", "validate"),
        *("bundle_root", "output_dir", "ckpt_dir", "resume", "run_name", "parent_run_id", "initialize", "run"),
    }
)
"""Keys, and parts of nested ones, that no search may touch.

Trials are compared on the same data, by the same score, after as many epochs.
"""

WORDS = {"type", "low", "high", "log", "step", "choices"}
TYPES = ("float", "int", "categorical")


class Trial(Protocol):
    """The part of an Optuna trial that is used."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """Draw a number."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Draw a whole number."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Draw one of several."""
        ...


@dataclass(frozen=True)
class Dimension:
    """One key and the values it may take.

    Attributes:
        key: of the bundle, nested as ``train#trainer#max_epochs``.
        kind: "float", "int" or "categorical".
        low: smallest value.
        high: largest value.
        log: draw orders of magnitude.
        step: distance of values; None: any.
        choices: values of a categorical one.
    """

    key: str
    kind: str
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that have to make sense: the ends, or all choices."""
        return self.choices or (self.low, self.high)


def parse_space(given: str) -> list[Dimension]:
    """Read a search space.

    Args:
        given: a JSON file, or the JSON itself: key → list of choices, or → dictionary with low and high, and log, step
            and type where wanted. Ends that are both whole numbers mean whole numbers, unless type is "float".

    Raises:
        ConfigError: naming the key and what is wrong.

    Example:
        >>> space = parse_space('{"learning_rate": {"low": 1e-4, "high": 1e-2, "log": true}, "ema": [true, false]}')
        >>> [(dimension.key, dimension.kind) for dimension in space]
        [('learning_rate', 'float'), ('ema', 'categorical')]
    """
    where = "--space"
    try:
        if not given.lstrip().startswith("{"):
            where = given
            given = Path(given).read_text(encoding="utf-8")
        content = json.loads(given)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}", where=where, remedy="give JSON, or a file of it") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError("names no keys", where=where, remedy='give {"learning_rate": {"low": 1e-4, "high": 1e-2}}')
    return [_dimension(key, entry, f"{where}, {key}") for key, entry in content.items()]


def _dimension(key: str, entry: Any, where: str) -> Dimension:
    remedy = 'give a list of choices, or {"low": ..., "high": ..., "log": true}'
    if isinstance(entry, list):
        entry = {"choices": entry}
    if not isinstance(entry, dict):
        raise ConfigError(f"{entry!r} is neither list nor dictionary", where=where, remedy=remedy)
    for word in entry:
        if word not in WORDS:
            close = nearest(word, sorted(WORDS))
            raise ConfigError(
                f"{word!r} is unknown", where=where, remedy=f"did you mean {close!r}?" if close else remedy
            )
    kind = entry.get("type", "categorical" if "choices" in entry else _kind(entry))
    if kind not in TYPES:
        raise ConfigError(f"type {kind!r} is unknown", where=where, remedy=f"use one of {', '.join(TYPES)}")
    if kind == "categorical":
        choices = entry.get("choices")
        if not isinstance(choices, list) or len(choices) < 2:
            raise ConfigError("needs two choices or more", where=where, remedy=remedy)
        return Dimension(key, kind, choices=tuple(choices))
    low: Any = entry.get("low")
    high: Any = entry.get("high")
    step, log = entry.get("step"), entry.get("log", False)
    if not (_is_number(low) and _is_number(high) and low < high and (step is None or _is_number(step))):
        raise ConfigError(f"no range: low {low!r}, high {high!r}, step {step!r}", where=where, remedy=remedy)
    if not isinstance(log, bool) or (log and (low <= 0 or step is not None)):
        raise ConfigError("log needs a low above 0 and no step", where=where, remedy="drop log, or change the range")
    if kind == "int" and not all(isinstance(value, int) for value in (low, high, 1 if step is None else step)):
        raise ConfigError("whole numbers need whole ends", where=where, remedy='or give "type": "float"')
    return Dimension(key, kind, low, high, log, step)


def _kind(entry: Mapping[str, Any]) -> str:
    given = [entry[word] for word in ("low", "high", "step") if entry.get(word) is not None]
    return "int" if all(isinstance(value, int) for value in given) else "float"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_keys(space: Sequence[Dimension], config: Mapping[str, Any], fixed: Sequence[str] = ()) -> None:
    """Refuse keys that would change what trials are compared by, that do not exist, or that no value of fits.

    Args:
        space: the dimensions.
        config: the bundle's train config, unresolved.
        fixed: keys that are given a value besides.

    Raises:
        ConfigError: naming the key.
    """
    kinds = {key.name: key.kind for key in KEYS}
    for dimension in space:
        parts = dimension.key.replace("::", "#").split("#")
        where = f"--space, {dimension.key}"
        if not KEPT.isdisjoint(parts):
            raise ConfigError(
                "trials must share data, score and length to be compared, and none may see the test part",
                where=where,
                remedy="leave it out of the space; give it as --key value for all trials",
            )
        if dimension.key in fixed:
            raise ConfigError("is also given a fixed value", where=where, remedy=f"leave --{dimension.key} out")
        if not _known(parts, config):
            close = nearest(dimension.key, sorted({*config, *kinds}))
            raise ConfigError("there is no such key", where=where, remedy=f"did you mean {close!r}?" if close else None)
        wanted, fits = KINDS[kinds.get(dimension.key, "any")]
        bad = [value for value in dimension.examples if not fits(value)]
        if bad:
            raise ConfigError(f"must be {wanted}, not {bad[0]!r}", where=where, remedy="change the range or choices")


def _known(parts: Sequence[str], config: Any) -> bool:
    """Whether a nested key can be set: all but its last part exist, and the last does or is a new argument."""
    for part in parts[:-1]:
        if isinstance(config, dict) and part in config:
            config = config[part]
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return False
    last = parts[-1]
    if isinstance(config, dict):
        return last in config or (len(parts) > 1 and "_target_" in config)
    return isinstance(config, list) and last.isdigit() and int(last) < len(config)


def suggest(trial: Trial, space: Sequence[Dimension]) -> dict[str, Any]:
    """Draw a value for each key.

    Choices that are lists or dictionaries, which a study cannot store, are drawn by their JSON text.

    Args:
        trial: of Optuna.
        space: the dimensions.
    """
    drawn: dict[str, Any] = {}
    for item in space:
        if item.kind == "float":
            drawn[item.key] = trial.suggest_float(item.key, item.low, item.high, step=item.step, log=item.log)
        elif item.kind == "int":
            low, high, step = int(item.low), int(item.high), int(item.step or 1)
            drawn[item.key] = trial.suggest_int(item.key, low, high, step=step, log=item.log)
        else:
            texts = {json.dumps(choice): choice for choice in item.choices}
            drawn[item.key] = texts[trial.suggest_categorical(item.key, list(texts))]
    return drawn
