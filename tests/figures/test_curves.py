"""Curves show the rows of history.csv, and mark the epoch that was kept."""

from __future__ import annotations

import math

import pytest

from medmamba_monai.errors import DataError
from medmamba_monai.figures.curves import best_epoch, curves

ROWS = [
    {"epoch": 1.0, "train_loss": 1.0, "learning_rate": 0.1, "seconds": 2.0, "train_accuracy": 0.4, "val_auc": 0.5},
    {"epoch": 2.0, "train_loss": 0.8, "learning_rate": 0.2, "seconds": 2.0, "train_accuracy": 0.5, "val_auc": None},
    {"epoch": 3.0, "train_loss": 0.7, "learning_rate": 0.1, "seconds": 2.0, "train_accuracy": 0.6, "val_auc": 0.9},
    {"epoch": 4.0, "train_loss": 0.6, "learning_rate": 0.0, "seconds": 2.0, "train_accuracy": 0.7, "val_auc": 0.8},
]


def test_lines_are_the_columns() -> None:
    figure = curves(ROWS, "Ultrasound")
    losses, scores, rates = figure.axes
    assert losses.lines[0].get_ydata().tolist() == [1.0, 0.8, 0.7, 0.6]
    assert rates.lines[0].get_ydata().tolist() == [0.1, 0.2, 0.1, 0.0]
    lines = {line.get_label(): line.get_data() for line in scores.lines}
    assert lines["val_auc"][0].tolist() == [1, 3, 4]  # the epoch without validation is passed over
    assert lines["val_auc"][1].tolist() == [0.5, 0.9, 0.8]
    assert lines["train_accuracy"][1].tolist() == [0.4, 0.5, 0.6, 0.7]
    assert "epoch 3, val_auc 0.900" in scores.get_title(loc="right")
    assert "Ultrasound, 4 epochs" in figure.get_suptitle()


def test_best_epoch_without_scores() -> None:
    assert best_epoch([{"epoch": 1.0, "train_loss": 1.0}]) is None
    assert best_epoch([{"epoch": 1.0, "val_auc": math.nan}]) is None
    assert best_epoch([{"epoch": 1.0, "val_loss": 3.0, "val_auc": 0.5}]) == ("val_auc", 1, 0.5)


def test_one_epoch_without_scores_and_none() -> None:
    assert len(curves([{"epoch": 1.0, "train_loss": 1.0}], "a").axes) == 1
    with pytest.raises(DataError, match="no epochs"):
        curves([], "a")


def test_of_a_loss_the_smallest_value_is_the_best() -> None:
    rows = [{"epoch": 1, "val_brier": 0.9, "val_auc": 0.9}, {"epoch": 2, "val_brier": 0.2, "val_auc": 0.8}]
    assert best_epoch(rows) == ("val_brier", 2, 0.2)
    rows = [{"epoch": 1, "val_log_loss": 0.4}, {"epoch": 2, "val_log_loss": 0.6}]
    assert best_epoch(rows) == ("val_log_loss", 1, 0.4)
    curves(rows, "data")
