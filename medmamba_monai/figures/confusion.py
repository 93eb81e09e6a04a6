"""Confusion matrices: counts, and rates as colours; with several labels a two by two table a class."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medmamba_monai.figures.style import GREY, MOST_PANELS, Heading, new_figure, panels, shortened

__all__ = ["confusion_matrix"]

MAP = "Blues"  # one hue, even steps of lightness: the same for every kind of colour vision
MOST_WITH_RATES = 14  # classes; more would leave no room for a second line in a cell


def confusion_matrix(metrics: Mapping[str, Any], heading: Heading) -> Figure:
    """The matrix of metrics.json: a row's colours and percentages are shares of the images that have its class."""
    if "confusion_matrix" not in metrics:
        return _tables(metrics, heading)
    counts = np.array(metrics["confusion_matrix"], dtype=np.int64)
    names = [str(name) for name in metrics["class_names"]]
    size = min(max(4.6, 0.56 * len(names) + 2.2), 11)
    figure = new_figure(heading.under("Confusion matrix: counts and shares of each row"), max(size + 0.9, 6.2), size)
    axis = figure.subplots()
    _matrix(axis, counts, names)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    figure.colorbar(axis.images[0], ax=axis, label="share of the true class", shrink=0.75, ticks=(0, 0.5, 1))
    return figure


def rates_of(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Shares of each row; NaN in a row without images.

    Example:
        >>> rates_of(np.array([[3, 1], [0, 0]])).tolist()
        [[0.75, 0.25], [nan, nan]]
    """
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)


def _matrix(axis: Axes, counts: npt.NDArray[np.int64], names: list[str]) -> None:
    rates = rates_of(counts)
    axis.imshow(np.ma.masked_invalid(rates), cmap=MAP, vmin=0, vmax=1)
    axis.set_facecolor("#EEEEEE")
    ticks = range(len(names))
    few = len(names) <= 6
    if few:  # room for several lines
        lines = [textwrap.wrap(shortened(name, 40), 14) or [""] for name in names]
        short, options = ["\n".join(parts) for parts in lines], dict[str, Any]()
    else:
        short, options = [shortened(name, 20) for name in names], {"rotation": 40, "ha": "right"}
    axis.set_xticks(ticks, short, **options)
    axis.set_yticks(ticks, short)
    axis.tick_params(length=0, labelsize=9 if len(names) <= 14 else 7)
    axis.spines[:].set_visible(False)
    font = float(np.clip(11 - 0.35 * (len(names) - 3), 5, 11))
    for row, column in np.ndindex(*counts.shape):
        share, count = rates[row, column], int(counts[row, column])
        if np.isnan(share):
            continue
        percent = f"\n{share:.0%}" if count and len(names) <= MOST_WITH_RATES else ""
        text = f"{count}{percent}" if count or few else ""
        axis.text(column, row, text, ha="center", va="center", color=_readable(share), fontsize=font, linespacing=1.1)
    for row in np.flatnonzero(counts.sum(axis=1) == 0):
        axis.text((len(names) - 1) / 2, row, "no images", ha="center", va="center", color=GREY, style="italic")


def _readable(share: float) -> str:
    """Black or white text, whichever stands out from the colour of a share."""
    red, green, blue, _ = colormaps[MAP](share)
    luminance = sum(
        weight * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
        for weight, part in ((0.2126, red), (0.7152, green), (0.0722, blue))
    )  # relative luminance of WCAG 2
    return "black" if luminance > 0.179 else "white"


def _tables(metrics: Mapping[str, Any], heading: Heading) -> Figure:
    """Several labels an image: each class is a question of its own."""
    names = list(metrics["class_names"])[:MOST_PANELS]
    threshold = metrics.get("threshold", 0.5)
    title = f"Each class at threshold {threshold:g}: counts and shares of each row"
    if len(metrics["class_names"]) > MOST_PANELS:
        title += f", the first {MOST_PANELS} classes"
    figure, axes = panels(heading.under(title), names, "predicted", "truth", columns=4, height=2.0)
    for axis, name in zip(axes, names, strict=True):
        entry = metrics["per_class"][name]
        counts = np.array([[entry["tn"], entry["fp"]], [entry["fn"], entry["tp"]]], dtype=np.int64)
        _matrix(axis, counts, ["absent", "present"])
        axis.set_yticks((0, 1), ("absent", "present"), rotation=90, va="center")
        axis.tick_params(labelsize=8)
    return figure
