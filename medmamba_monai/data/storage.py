"""Canonical JSON, its digest, and files that appear whole or not at all.

Imports only errors; used all over data.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from medmamba_monai.errors import ConfigError, DataError

__all__ = ["canonical_json", "preprocessing_digest", "sha256_of", "write_atomically"]


def canonical_json(value: Any) -> str:
    r"""One text for equal values: sorted keys, no spaces, ASCII, no NaN.

    Raises:
        ConfigError: ``value`` holds something that JSON has no form for.

    Example:
        >>> canonical_json({"b": 1, "a": [1.5, "é"]})
        '{"a":[1.5,"\\u00e9"],"b":1}'
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"no canonical JSON form: {error}",
            remedy="give plain dicts, lists, texts, finite numbers, booleans or null, no evaluated objects",
        ) from error


def sha256_of(value: Any) -> str:
    """Hexadecimal SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def preprocessing_digest(config: Any) -> str:
    """Digest of a preprocessing section, kept beside trained weights and compared before they are used.

    Args:
        config: the section as plain JSON values (what stands in the configuration file).

    Returns:
        64 hexadecimal digits; equal for sections that differ in key order or layout only.

    Raises:
        ConfigError: the section holds evaluated objects instead of plain values.

    Example:
        >>> preprocessing_digest({"size": [224, 224], "color": "grey"})[:12]
        '2f59c96a4b72'
        >>> preprocessing_digest([1]) == preprocessing_digest([2])
        False
    """
    return sha256_of(config)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` so that a reader, or a crash, sees the old file or the new one, never a part.

    The temporary file lies in the same folder under a random name, is synced to disk, and then replaces
    ``path``.

    Raises:
        DataError: the folder cannot be made or written to.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot be written: {error.strerror or error}",
            where=str(target),
            remedy="choose an output folder that is writable and has free space",
        ) from error
