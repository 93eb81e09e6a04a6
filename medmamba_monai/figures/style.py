"""How every figure looks: size, colours, heading, saving. Matplotlib's objects only, without pyplot's state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medmamba_monai.handlers.files import write_atomic

__all__ = [
    "COLOURS",
    "GREY",
    "MOST_PANELS",
    "Heading",
    "house_style",
    "new_figure",
    "panels",
    "save",
    "say_instead",
    "shortened",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart with every kind of colour vision (jfly.uni-koeln.de/color); without yellow, which
is lost on white."""

GREY = "#767676"  # 4.5 to 1 against white
WIDTH = 7.2  # inches: 720 pixels of a page, a notebook's width
DPI = 140  # sharp on screens of high density as well
MOST_PANELS = 24
_RC: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#E3E3E3",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a dollar in a class name is a dollar
}


@dataclass(frozen=True)
class Heading:
    """What every figure says of its data.

    Attributes:
        name: of the data set or run.
        split: part of the data: test, validation or training.
        count: number of images.
    """

    name: str
    split: str
    count: int

    def under(self, title: str) -> str:
        """A title with a second line on the data.

        Example:
            >>> print(Heading("BUSI", "test", 78).under("ROC curves"))
            ROC curves
            BUSI, test part, n = 78 images
        """
        return f"{title}\n{shortened(self.name, 60)}, {self.split} part, n = {self.count} images"


@contextmanager
def house_style() -> Iterator[None]:
    """Settings that hold while figures are made and saved; nothing outside changes."""
    with matplotlib.rc_context(_RC):
        yield


def new_figure(title: str, width: float = WIDTH, height: float = 4.0) -> Figure:
    """An empty figure with its title, sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def panels(
    title: str, names: Sequence[str], x: str = "", y: str = "", columns: int = 3, height: float = 2.5
) -> tuple[Figure, list[Axes]]:
    """A figure with one panel a name, in rows; axes are named where a row or a column begins.

    Args:
        title: of the figure.
        names: of the panels.
        x: name of the horizontal axes.
        y: name of the vertical axes.
        columns: panels side by side, at most.
        height: of one row, in inches.

    Returns:
        The figure and as many axes as there are names.
    """
    across = min(columns, len(names))
    rows = math.ceil(len(names) / across)
    figure = new_figure(title, height=height * rows + 0.7)
    grid = list(figure.subplots(rows, across, squeeze=False).flat)
    for unused in grid[len(names) :]:
        unused.set_axis_off()
    axes: list[Axes] = grid[: len(names)]
    for number, (axis, name) in enumerate(zip(axes, names, strict=True)):
        axis.set_title(shortened(name, 60 // across))
        axis.set_ylabel(y if number % across == 0 else "", fontsize=9)
        axis.set_xlabel(x if number + across >= len(names) else "", fontsize=9)
    return figure, axes


def say_instead(axis: Axes, reason: str) -> None:
    """Give the reason where there is nothing to draw."""
    axis.text(
        0.5, 0.5, reason, transform=axis.transAxes, ha="center", va="center", color=GREY, wrap=True, style="italic"
    )


def shortened(name: str, most: int = 24) -> str:
    """A name that fits, and that a legend does not take for a private one.

    Example:
        >>> shortened("immature granulocytes (myelocytes)", 12), shortened("_cyst")
        ('immature gr…', ' _cyst')
    """
    plain = " ".join(name.split())
    text = plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"
    return f" {text}" if text.startswith("_") else text


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # once; savefig would draw twice
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    write_atomic(path, lambda stream: picture.save(stream, "PNG", dpi=(DPI, DPI)))
