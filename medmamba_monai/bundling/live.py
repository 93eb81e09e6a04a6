"""What a command that starts many runs shows: a line for each that ended, and one that changes for the present run.

Standard library only.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

__all__ = ["Live", "table"]


class Live:
    """Writes finished lines for good, and on a terminal a last line that is overwritten.

    Args:
        stream: where to; None for the standard output.

    Example:
        >>> live = Live()
        >>> live.show("epoch 1 of 9")  # no terminal: nothing is shown
        >>> live.tell("fold 1: done", seconds=False)
        fold 1: done
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        self._began = time.monotonic()
        self._shown = 0

    def show(self, text: str) -> None:
        """Replace the last line."""
        if self.stream.isatty():
            text = text[: shutil.get_terminal_size().columns - 1]
            self.stream.write("\r" + text.ljust(self._shown))
            self.stream.flush()
            self._shown = len(text)

    def tell(self, text: str, seconds: bool = True) -> None:
        """Write a line that stays.

        Args:
            text: the line.
            seconds: add the time since the line before.
        """
        passed, self._began = time.monotonic() - self._began, time.monotonic()
        if self._shown:
            self.show("")
            self.stream.write("\r")
            self._shown = 0
        self.stream.write(f"{text} ({passed:.0f} s)\n" if seconds else f"{text}\n")
        self.stream.flush()


def table(rows: list[list[str]]) -> str:
    """Rows of columns as aligned text, the first row being their heads.

    Example:
        >>> print(table([["", "auc"], ["fold 1", "0.5"]]))
                auc
        fold 1  0.5
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    padded = ([f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in padded)
