"""Loss, learning rate and scores over the epochs of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medmamba_monai.errors import DataError
from medmamba_monai.figures.style import COLOURS, GREY, new_figure, shortened
from medmamba_monai.metrics import score_mode

__all__ = ["best_epoch", "curves"]

Row = Mapping[str, float | None]
APART = ("epoch", "seconds", "learning_rate")


def curves(history: Sequence[Row], name: str) -> Figure:
    """Losses with the learning rate, above the scores of training (dashed) and validation.

    Args:
        history: rows of history.csv, see ``handlers.read_history``.
        name: of the data set or run.

    Raises:
        DataError: there are no rows.
    """
    if not history:
        raise DataError("the history has no epochs", remedy="train for at least one epoch")
    columns = list(dict.fromkeys(column for row in history for column in row if column not in APART))
    losses = [column for column in columns if "loss" in column]
    scores = [column for column in columns if column not in losses]
    plural = "s" if len(history) > 1 else ""
    title = f"Training\n{shortened(name, 60)}, {len(history)} epoch{plural}"
    figure = new_figure(title, height=5.6 if scores else 3.2)
    axes: list[Axes] = list(figure.subplots(2 if scores else 1, 1, sharex=True, squeeze=False).flat)
    for colour, column in zip(_cycled(len(losses)), losses, strict=True):
        _line(axes[0], history, column, colour, "--" if column.startswith("train_") and len(losses) > 1 else "-")
    axes[0].set_ylabel("loss")
    _learning_rate(axes[0], history)
    _legend(axes[0], losses)
    if scores:
        _scores(axes[1], history, scores)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes:
        axis.grid(visible=True)
    return figure


def best_epoch(history: Sequence[Row]) -> tuple[str, int, float] | None:
    """Name, epoch and value of the best validation score; the first such column is the one that decides.

    Example:
        >>> best_epoch([{"epoch": 1, "val_auc": 0.7}, {"epoch": 2, "val_auc": 0.6}])
        ('val_auc', 1, 0.7)
    """
    names = [column for row in history for column in row if column.startswith("val_") and column != "val_loss"]
    if not names:
        return None
    values = _values(history, names[0])
    if np.isnan(values).all():
        return None
    pick = np.nanargmin if score_mode(names[0].removeprefix("val_")) == "min" else np.nanargmax
    index = int(pick(values))
    return names[0], int(history[index]["epoch"] or 0), float(values[index])


def _scores(axis: Axes, history: Sequence[Row], scores: Sequence[str]) -> None:
    bases = list(dict.fromkeys(column.removeprefix("train_").removeprefix("val_") for column in scores))
    colours = dict(zip(bases, _cycled(len(bases)), strict=True))
    for column in scores:
        base = column.removeprefix("train_").removeprefix("val_")
        _line(axis, history, column, colours[base], "--" if column.startswith("train_") else "-")
    best = best_epoch(history)
    if best is not None:
        axis.axvline(best[1], color=GREY, linewidth=1, linestyle=":")
        if best[0] in scores:  # a loss is drawn above
            axis.plot([best[1]], [best[2]], "o", color=colours[best[0].removeprefix("val_")], markersize=7, mfc="white")
        axis.set_title(f"kept: epoch {best[1]}, {best[0]} {best[2]:.3f}", fontsize=9, loc="right", color=GREY)
    axis.set_ylabel("score")
    _legend(axis, scores)


def _learning_rate(axis: Axes, history: Sequence[Row]) -> None:
    rates = _values(history, "learning_rate")
    if np.isnan(rates).all():
        return
    other = axis.twinx()
    other.plot(_values(history, "epoch"), rates, color=GREY, linewidth=1, linestyle=":")
    other.set_ylabel("learning rate (dotted)", color=GREY)
    other.tick_params(colors=GREY)
    other.set_ylim(bottom=0)
    other.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _line(axis: Axes, history: Sequence[Row], column: str, colour: str, style: str) -> None:
    x, y = _values(history, "epoch"), _values(history, column)
    measured = ~np.isnan(y)  # validation may be rarer than epochs: the points are joined
    axis.plot(
        x[measured], y[measured], style, color=colour, label=shortened(column),
        marker="o" if measured.sum() <= 20 else None, markersize=3.5,
    )  # fmt: skip


def _legend(axis: Axes, columns: Sequence[str]) -> None:
    if columns:
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.12 if "loss" in columns[0] else -0.2), ncols=4)


def _values(history: Sequence[Row], column: str) -> npt.NDArray[np.float64]:
    return np.array([row.get(column) if row.get(column) is not None else np.nan for row in history], dtype=np.float64)


def _cycled(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
