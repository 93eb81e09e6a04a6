"""Finds paths of somebody's own machine in what is about to be released. Standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medmamba_monai.errors import ConfigError

__all__ = ["personal_paths", "refuse_personal_paths"]

_TOPS = "home|Users|root|mnt|media|Volumes|data|scratch|tmp|private|var|opt|srv|workspace|gpfs|lustre|nfs"
_PATH = re.compile(
    # of POSIX systems; behind a host's name it is an address, behind "+ '" the end of a longer path
    rf"(?<![\w:/.@}}])(?<!\+ ')/(?:{_TOPS})/[^\s\"'`,;)]+"
    r"|(?<![\w/.@)])~[\w.-]*/[^\s\"'`,;)]+"
    r"|(?<!\w)[A-Za-z]:(?:\\+|/)[^\s\"'`,;)/]+"  # of Windows
    r"|(?<!\w)file:/[^\s\"'`,;)]+"
)
_WHOLE = re.compile(r"/(?!/)[^/\s]+/\S*|\\\\\S+")
"""A value of a config that is an absolute path as a whole, wherever it leads."""

TEXT = (".json", ".yaml", ".yml", ".conf", ".md", ".txt", ".py", "")


def personal_paths(text: str, is_json: bool = False, own: Sequence[str] = ()) -> list[str]:
    r"""List what in a text looks like a path of one machine.

    Args:
        text: contents of a file.
        is_json: also look at whether single values are absolute paths.
        own: folders that must not be named, as the home of the person who packs.

    Example:
        >>> personal_paths('{"data": "/home/ann/x", "run": "$@bundle_root + \'/models/model.pt\'"}', is_json=True)
        ['/home/ann/x']
        >>> personal_paths("see https://host/data/x and C:\\Users\\ann\\x")
        ['C:\\Users\\ann\\x']
    """
    found = _PATH.findall(text)
    found += [place for place in own if re.search(rf"(?<![\w.:/]){re.escape(place)}(?![\w-])", text)]
    if is_json:
        found += [value for value in _texts(json.loads(text)) if _WHOLE.fullmatch(value)]
    return sorted(set(found))


def refuse_personal_paths(folder: Path, files: Sequence[str], own: Sequence[str] = ()) -> None:
    """Look through files that are to be released.

    Args:
        folder: of the bundle.
        files: paths relative to it; pictures and weights are left alone.
        own: see `personal_paths`; the home folder of whoever runs this is always looked for.

    Raises:
        ConfigError: naming files and paths.
    """
    # a folder directly under / has too common a name to be looked for
    own = [place for place in (*own, str(Path.home())) if len(Path(place).parts) > 2]
    found = []
    for file in files:
        if Path(file).suffix in TEXT:
            text = (folder / file).read_text(encoding="utf-8")
            paths = personal_paths(text, file.endswith(".json"), own)
            found += [f"{file} names {path}" for path in paths]
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise ConfigError(
            f"paths of one machine would be released: {'; '.join(found[:5])}{more}",
            where=folder.name,
            remedy="write them relative to @bundle_root, or take them out",
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
