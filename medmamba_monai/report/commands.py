"""The commands that repeat a run, from the configuration it was run with; folders are named, not told."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["changes", "command_lines"]

MODES = {"train": ["train"], "evaluate": ["train", "evaluate"]}
PLACES = {"dataset_dir": "IMAGES", "output_dir": "OUTPUT", "ckpt_dir": "MODELS", "bundle_root": "BUNDLE"}
SECRETS = {"tracking_uri": "TRACKING_URI"}  # a server's address may hold a password
_ABSOLUTE = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\)")


def command_lines(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """One command a saved configuration, "train" and "evaluate".

    What differs from the bundle's own configuration is given as an override. Folders become IMAGES, OUTPUT,
    MODELS and BUNDLE, other absolute paths lose their folders: a page that is handed on tells no home directory.

    Args:
        configs: mode → configuration as it was run.
    """
    return {mode: _command(mode, configs[mode]) for mode in MODES if mode in configs}


def _command(mode: str, config: Mapping[str, Any]) -> str:
    files = [f"BUNDLE/configs/{name}.json" for name in MODES[mode]]
    named = files[0] if len(files) == 1 else json.dumps(str(files).replace(" ", ""))
    words = ["python -m monai.bundle run", f"--config_file {named}", "--bundle_root BUNDLE"]
    original = _original(mode, config)
    told = dict(_plain_keys(config)) if original is None else dict(changes(config, original))
    for key, value in told.items():
        if key in PLACES:
            continue
        words.append(f"--{key} {_word(key, value)}")
    words[3:3] = [f"--{key} {PLACES[key]}" for key in ("dataset_dir", "output_dir", "ckpt_dir")]
    return " \\\n  ".join(words)


def changes(config: Any, original: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Ids of a MONAI config whose values differ, with their values in ``config``; keys that are gone are left out.

    Example:
        >>> list(changes({"a": 2, "b": {"c": [1, 3]}}, {"a": 1, "b": {"c": [1, 2]}}))
        [('a', 2), ('b::c::1', 3)]
    """
    if config == original:
        return
    if isinstance(config, Mapping) and isinstance(original, Mapping) and set(config) <= set(original) | {"bundle_root"}:
        pairs = [(str(key), value, original.get(key)) for key, value in config.items()]
    elif isinstance(config, list) and isinstance(original, list) and len(config) == len(original):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(config, original, strict=True))]
    elif not path and isinstance(config, Mapping) and isinstance(original, Mapping):
        pairs = [(str(key), value, original.get(key)) for key, value in config.items()]
    else:
        yield path, config
        return
    for key, value, before in pairs:
        yield from changes(value, before, f"{path}::{key}" if path else key)


def _original(mode: str, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The bundle's own configuration, if its folder is where it was."""
    from monai.bundle import ConfigParser

    root = config.get("bundle_root")
    files = [Path(root) / "configs" / f"{name}.json" for name in MODES[mode]] if isinstance(root, str) else []
    if not files or not all(file.is_file() for file in files):
        return None
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    return {key: value for key, value in parser.get().items() if key != "_meta_"}


def _plain_keys(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Without the bundle it is not known what was changed: every plain value."""
    for key, value in config.items():
        expression = isinstance(value, str) and value.startswith(("$", "@"))
        if isinstance(value, str | int | float) and not expression:
            yield key, value


def _word(key: str, value: Any) -> str:
    if key in SECRETS and isinstance(value, str) and not value.startswith("$"):
        return SECRETS[key]
    value = _without_folders(value)
    text = value if isinstance(value, str) else repr(value)
    return shlex.quote(text)


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and _ABSOLUTE.match(value):
        return "PATH/" + re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value
