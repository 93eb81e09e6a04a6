"""ROC, precision-recall and score distribution of each class against the rest, one panel a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medmamba_monai.figures.bands import cluster_weights, precision_recall_band, resamples_for, roc_band
from medmamba_monai.figures.numbers import class_interval, reason_for, written
from medmamba_monai.figures.style import COLOURS, GREY, MOST_PANELS, Heading, panels, say_instead, shortened
from medmamba_monai.figures.truth import positives, support
from medmamba_monai.metrics import PredictionTable

__all__ = ["precision_recall", "roc", "score_histograms"]

BLUE, ORANGE = COLOURS[0], COLOURS[1]
GRID = np.linspace(0, 1, 101)
BINS = np.linspace(0, 1, 21)


def roc(table: PredictionTable, metrics: Mapping[str, Any], heading: Heading) -> Figure:
    """ROC curves with 95 % bands; the AUC in each panel is the one of metrics.json."""
    from sklearn.metrics import roc_curve

    weights = cluster_weights(table.clusters, resamples_for(len(table.files)))
    numbers = _shown(table)
    figure, axes = panels(
        _title(table, heading, "ROC curve of each class"), _names(table, numbers), "1 - specificity", "sensitivity"
    )
    for axis, number in zip(axes, numbers, strict=True):
        truth, scores = positives(table, number), table.probabilities[:, number]
        _square(axis)
        if not truth.any() or truth.all():
            say_instead(axis, _lacking(truth))
            continue
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        low, high = roc_band(truth, scores, weights, GRID)
        axis.fill_between(GRID, low, high, color=BLUE, alpha=0.18, linewidth=0)
        rates = roc_curve(truth, scores, drop_intermediate=False)
        axis.plot(rates[0], rates[1], color=BLUE)
        _tell(axis, metrics, table.class_names[number], "auc", "AUC", truth)
    return figure


def precision_recall(table: PredictionTable, metrics: Mapping[str, Any], heading: Heading) -> Figure:
    """Precision-recall curves with 95 % bands; the dotted line is what guessing reaches, the class's share."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    weights = cluster_weights(table.clusters, resamples_for(len(table.files)))
    numbers = _shown(table)
    title = _title(table, heading, "Precision-recall curve of each class")
    figure, axes = panels(title, _names(table, numbers), "recall (sensitivity)", "precision")
    grid = GRID[1:]  # at recall 0 nothing is called
    for axis, number in zip(axes, numbers, strict=True):
        truth, scores, name = positives(table, number), table.probabilities[:, number], table.class_names[number]
        _square(axis)
        if not truth.any() or truth.all():
            say_instead(axis, _lacking(truth))
            continue
        axis.axhline(truth.mean(), color=GREY, linewidth=0.8, linestyle=":")
        low, high = precision_recall_band(truth, scores, weights, grid)
        axis.fill_between(grid, low, high, color=BLUE, alpha=0.18, linewidth=0)
        precisions, recalls, _ = precision_recall_curve(truth, scores)
        axis.plot(recalls, precisions, color=BLUE, drawstyle="steps-post")
        if "average_precision" in metrics.get("per_class", {}).get(name, {}):
            _tell(axis, metrics, name, "average_precision", "AP", truth)
        else:  # metrics.json of a version that had none
            _note(axis, f"AP {average_precision_score(truth, scores):.3f}", truth)
    return figure


def score_histograms(table: PredictionTable, metrics: Mapping[str, Any], heading: Heading) -> Figure:
    """How often each probability of a class was given to images that have it, and to those that do not."""
    numbers = _shown(table)
    title = _title(table, heading, "Probability of each class, for images that have it and for the others")
    figure, axes = panels(title, _names(table, numbers), "probability", "share of images", height=2.1)
    for axis, number in zip(axes, numbers, strict=True):
        truth, scores = positives(table, number), table.probabilities[:, number]
        for part, colour, label, style in ((~truth, GREY, "others", "--"), (truth, ORANGE, "this class", "-")):
            if part.any():
                shares = np.full(int(part.sum()), 1 / part.sum())
                options: dict[str, Any] = {"bins": BINS, "weights": shares, "color": colour}
                axis.hist(scores[part], histtype="stepfilled", alpha=0.25, **options)
                axis.hist(scores[part], histtype="step", linewidth=1.4, linestyle=style, label=label, **options)
        axis.set(xlim=(0, 1), xticks=(0, 0.5, 1))
        if table.task == "multilabel":
            axis.axvline(float(metrics.get("threshold", 0.5)), color=GREY, linewidth=0.8, linestyle=":")
        note = f"n = {int(truth.sum())}, others {int((~truth).sum())}"
        axis.set_title(f"{axis.get_title()}\n{note}", fontsize=9)
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes), key=lambda found: len(found[1]))
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _shown(table: PredictionTable) -> list[int]:
    """The classes that get a panel: all, or where those would be too many the most frequent ones."""
    counts = support(table)
    largest = sorted(range(len(counts)), key=lambda number: -counts[number])[:MOST_PANELS]
    return sorted(largest)


def _title(table: PredictionTable, heading: Heading, title: str) -> str:
    left_out = len(table.class_names) - MOST_PANELS
    return heading.under(f"{title}, {left_out} rare classes left out" if left_out > 0 else title)


def _names(table: PredictionTable, numbers: list[int]) -> list[str]:
    return [table.class_names[number] for number in numbers]


def _square(axis: Axes) -> None:
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), box_aspect=1)
    axis.grid(visible=True)
    axis.set_axisbelow(True)


def _lacking(truth: npt.NDArray[np.bool_]) -> str:
    return "no image has\nthis class" if not truth.any() else "every image has\nthis class"


def _tell(
    axis: Axes, metrics: Mapping[str, Any], name: str, metric: str, short: str, truth: npt.NDArray[np.bool_]
) -> None:
    value = metrics.get("per_class", {}).get(name, {}).get(metric)
    text = f"{short} {written(value, class_interval(metrics, name, metric))}"
    if value is None:
        text = f"{short}: {shortened(reason_for(metrics, f'{name}.{metric}'), 40)}"
    _note(axis, text, truth)


def _note(axis: Axes, text: str, truth: npt.NDArray[np.bool_]) -> None:
    axis.set_title(f"{axis.get_title()} (n = {int(truth.sum())})\n{text}", fontsize=9)
