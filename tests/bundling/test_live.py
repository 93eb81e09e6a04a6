"""What is shown while runs are at work."""

from __future__ import annotations

import io

from medmamba_monai.bundling.live import Live, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_last_line_is_overwritten() -> None:
    stream = Terminal()
    live = Live(stream)
    live.show("epoch 10 of 10")
    live.show("epoch 1")
    live.tell("fold 1: done")
    assert stream.getvalue().startswith("\repoch 10 of 10\repoch 1       \r")
    assert stream.getvalue().endswith("\rfold 1: done (0 s)\n")


def test_elsewhere_only_what_stays_is_written() -> None:
    stream = io.StringIO()
    live = Live(stream)
    live.show("epoch 1")
    live.tell("done", seconds=False)
    assert stream.getvalue() == "done\n"


def test_columns_are_aligned() -> None:
    assert table([["", "auc", "n"], ["fold 1", "0.5", "9"]]) == "        auc  n\nfold 1  0.5  9"
