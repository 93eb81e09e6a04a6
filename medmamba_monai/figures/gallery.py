"""All figures of an evaluation, drawn from its tables and written as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medmamba_monai.figures import classwise, confidence, confusion, pictures
from medmamba_monai.figures.curves import curves
from medmamba_monai.figures.style import Heading, house_style, save
from medmamba_monai.metrics import PredictionTable

__all__ = ["FOLDER", "NAMES", "draw_batch", "draw_evaluation", "draw_history"]

FOLDER = "figures"
NAMES = (
    "curves",
    "confusion_matrix",
    "roc",
    "precision_recall",
    "reliability",
    "risk_coverage",
    "score_histograms",
    "confident_errors",
    "training_batch",
)
"""Every figure by the name of its file, in the order in which a page shows them."""


def draw_evaluation(
    folder: Path,
    table: PredictionTable,
    metrics: Mapping[str, Any],
    heading: Heading,
    read: Callable[[str], Any] | None = None,
) -> list[Path]:
    """Draw what a table of predictions and its metrics show.

    Args:
        folder: of the PNG files; made if needed.
        table: predictions with labels.
        metrics: content of metrics.json.
        heading: what the figures' titles say of the data.
        read: gives the picture (C, H, W) or volume (C, H, W, D) of a file name; None: the images are not at hand.

    Returns:
        The files.

    Raises:
        DataError: the table has no labels.
        CheckpointError: the folder cannot be written.
    """
    threshold = float(metrics.get("threshold", 0.5))
    mistakes = pictures.worst_mistakes(table, threshold, most=len(table.files))
    worst = mistakes[: pictures.MOST_ERRORS]
    drawings: dict[str, Callable[[], Figure]] = {
        "confusion_matrix": lambda: confusion.confusion_matrix(metrics, heading),
        "roc": lambda: classwise.roc(table, metrics, heading),
        "precision_recall": lambda: classwise.precision_recall(table, metrics, heading),
        "reliability": lambda: confidence.reliability(table, metrics, heading),
        "risk_coverage": lambda: confidence.risk_coverage(table, metrics, heading),
        "score_histograms": lambda: classwise.score_histograms(table, metrics, heading),
        "confident_errors": lambda: pictures.confident_errors(worst, read, heading, len(mistakes)),
    }
    return [_draw(folder, name, drawing) for name, drawing in drawings.items()]


def draw_history(folder: Path, history: Sequence[Mapping[str, float | None]], name: str) -> Path:
    """Draw the curves of a training.

    Args:
        folder: of the PNG file; made if needed.
        history: rows of history.csv.
        name: of the data set or run.

    Raises:
        DataError: there are no rows.
        CheckpointError: the folder cannot be written.
    """
    return _draw(folder, "curves", lambda: curves(history, name))


def draw_batch(folder: Path, images: Any, labels: Sequence[str], files: Sequence[str], name: str, size: int) -> Path:
    """Draw the first images of a training batch; arguments as those of ``pictures.training_batch``.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    return _draw(folder, "training_batch", lambda: pictures.training_batch(images, labels, files, name, size))


def _draw(folder: Path, name: str, drawing: Callable[[], Figure]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    with house_style():
        save(drawing(), path)
    return path
