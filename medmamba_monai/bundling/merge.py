"""Strict merging of a modality's overlay into a base config, in MONAI's own merge syntax.

The syntax is that of a list of config files given to ``monai.bundle``: a plain key overrides, ``+key``
extends a list or updates a dict, and ``a::b::0`` reaches into nested dicts and lists. MONAI adds a key it
does not know; here that is an error, because in an overlay it is nearly always a misspelling. Standard
library only.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medmamba_monai.errors import ConfigError

__all__ = ["REQUIRED", "SEPARATOR", "merge", "missing", "nearest", "read_json"]

SEPARATOR = "::"
"""Between the parts of a nested id, as in ``train::trainer::max_epochs``."""

REQUIRED = "!required: "
"""A base value that starts so must be replaced by every overlay; the rest says what is wanted."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, refusing a key that is written twice.

    Args:
        path: the file.

    Returns:
        The object as a dict, in file order.

    Raises:
        ConfigError: the file is missing, is not JSON, is not an object, or repeats a key.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise ConfigError(f"key {key!r} is written twice", where=str(path), remedy="keep one of the two")
            result[key] = value
        return result

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except OSError as error:
        raise ConfigError("cannot be read", where=str(path), remedy="create it or correct the name") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"is not JSON: {error}", where=str(path), remedy="correct that line") from error
    if not isinstance(content, dict):
        raise ConfigError(f"holds a JSON {type(content).__name__}, not an object", where=str(path))
    return content


def nearest(key: str, known: Iterable[str]) -> str | None:
    """Return the known name that looks most like ``key``, or None.

    Example:
        >>> nearest("epoch", ["epochs", "device"])
        'epochs'
    """
    matches = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def _unknown(key: str, part: str, container: Any, where: str) -> ConfigError:
    if not isinstance(container, dict):
        remedy = f"the base has {len(container)} items there" if isinstance(container, list) else None
        return ConfigError(f"key {key!r}: the base has no item {part!r}", where=where, remedy=remedy)
    close = nearest(part, container)
    remedy = f"did you mean {close!r}?" if close else "add it to the base config, or remove it here"
    return ConfigError(f"key {key!r}: the base config does not know {part!r}", where=where, remedy=remedy)


def _step(container: Any, part: str, key: str, where: str) -> str | int:
    """Return ``part`` as an existing key or index of ``container``."""
    if isinstance(container, dict) and part in container:
        return part
    if isinstance(container, list) and part.isdigit() and int(part) < len(container):
        return int(part)
    raise _unknown(key, part, container, where)


def merge(base: dict[str, Any], overlay: dict[str, Any], where: str) -> dict[str, Any]:
    """Merge ``overlay`` into a copy of ``base``.

    Args:
        base: the config that holds every key.
        overlay: plain, ``+`` and nested keys, see the module's description.
        where: how errors name the overlay (file and section).

    Returns:
        The merged config, in the base's key order.

    Raises:
        ConfigError: a key the base does not know, or a ``+`` whose sides are not both dicts or both lists.

    Example:
        >>> base = {"lr": 1, "net": {"dims": 2}, "steps": [1]}
        >>> merge(base, {"lr": 3, "net::dims": 4, "+steps": [2]}, "example")
        {'lr': 3, 'net': {'dims': 4}, 'steps': [1, 2]}
    """
    result = copy.deepcopy(base)
    for key, value in overlay.items():
        extend, path = key.startswith("+"), key.removeprefix("+").replace("#", SEPARATOR)
        *parents, last = path.split(SEPARATOR)
        container: Any = result
        for part in parents:
            container = container[_step(container, part, key, where)]
        slot = _step(container, last, key, where)
        container[slot] = _extended(container[slot], value, key, where) if extend else copy.deepcopy(value)
    return result


def _extended(old: Any, new: Any, key: str, where: str) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **copy.deepcopy(new)}
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *copy.deepcopy(new)]
    kinds = f"{type(old).__name__} in the base, {type(new).__name__} here"
    raise ConfigError(f"key {key!r} can extend a dict by a dict or a list by a list, not {kinds}", where=where)


def missing(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (id, what is wanted) for every value that still carries the `REQUIRED` marker.

    Example:
        >>> list(missing({"a": {"b": REQUIRED + "a colour"}}))
        [('a::b', 'a colour')]
    """
    if isinstance(config, str) and config.startswith(REQUIRED):
        yield prefix, config.removeprefix(REQUIRED)
    elif isinstance(config, (dict, list)):
        for part, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from missing(value, f"{prefix}{SEPARATOR}{part}" if prefix else str(part))
