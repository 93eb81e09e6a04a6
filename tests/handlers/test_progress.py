"""One readable line an epoch; a bar only on a terminal."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import pytest

from medmamba_monai.handlers import Progress


def lines_of(build: Any, caplog: pytest.LogCaptureFixture, **options: Any) -> list[str]:
    training = build(lambda network, evaluator, scheduler: [Progress(evaluator, **options)], epochs=2)
    with caplog.at_level(logging.INFO, logger="medmamba_monai.handlers.progress"):
        training.trainer.run()
    return [record.message for record in caplog.records if record.name.endswith("progress")]


def test_one_line_an_epoch(build: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(build, caplog)
    assert len(lines) == 2
    assert re.fullmatch(r"epoch 2 of 2: loss \d+\.\d{4}, val_auc \d\.\d{4}, \d+\.\d s", lines[1])
    assert "[1/3]" not in capfd.readouterr().err


def test_bar_on_a_terminal(
    build: Any,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert len(lines_of(build, caplog)) == 2
    assert "[2/3]" in capfd.readouterr().err


@pytest.mark.parametrize("off", ["flag", "rank"])
def test_silent_when_off_or_not_rank_zero(
    build: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, off: str
) -> None:
    if off == "rank":
        monkeypatch.setenv("RANK", "1")
    assert lines_of(build, caplog, enabled=off == "rank") == []
