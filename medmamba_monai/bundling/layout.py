"""How generated JSON looks: short values on one line, long ones indented. Standard library only."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["json_text"]

WIDTH = 110
INDENT = "  "


def json_text(value: Any) -> str:
    """Write ``value`` as JSON that people can read and diff.

    Args:
        value: what the json module can write; key order is kept.

    Returns:
        The text, ending in a newline; a dict or list that fits within 110 columns takes one line, and
        the outermost level is always spread.

    Example:
        >>> print(json_text({"size": [64, 64], "name": "nano"}), end="")
        {
          "size": [64, 64],
          "name": "nano"
        }
    """
    return _spread(value, "", top=True) + "\n"


def _spread(value: Any, indent: str, used: int = 0, top: bool = False) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or not value or (not top and used + len(flat) <= WIDTH):
        return flat
    inner = indent + INDENT
    if isinstance(value, list):
        items = [_spread(item, inner, len(inner) + 1) for item in value]
        opening, closing = "[", "]"
    else:
        names = [json.dumps(key, ensure_ascii=False) + ": " for key in value]
        pairs = zip(names, value.values(), strict=True)
        items = [name + _spread(item, inner, len(inner) + len(name) + 1) for name, item in pairs]
        opening, closing = "{", "}"
    body = ",\n".join(inner + item for item in items)
    return f"{opening}\n{body}\n{indent}{closing}"
