"""Sheets of images: the most confident errors, and a training batch as the network sees it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medmamba_monai.errors import DataError
from medmamba_monai.figures.style import GREY, Heading, new_figure, say_instead, shortened
from medmamba_monai.figures.truth import labels_of
from medmamba_monai.metrics import PredictionTable

__all__ = ["MOST_ERRORS", "Mistake", "confident_errors", "shown_picture", "training_batch", "worst_mistakes"]

MOST_ERRORS = 12
MOST_OF_A_BATCH = 16
LONGEST_SIDE = 320  # pixels of a tile; the sheet shows it smaller
Picture = npt.NDArray[Any]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Attributes:
        file: of the image.
        truth: class name; with several labels the class in question, or "no" and its name.
        prediction: likewise.
        probability: that the network gave to its answer.
    """

    file: str
    truth: str
    prediction: str
    probability: float


def worst_mistakes(table: PredictionTable, threshold: float = 0.5, most: int = MOST_ERRORS) -> list[Mistake]:
    """Wrong answers, the most confident first; with several labels every image is listed once, by its worst answer.

    Raises:
        DataError: the table has no labels.
    """
    labels, values, names = labels_of(table), table.probabilities, table.class_names
    found = []
    for row, file in enumerate(table.files):
        if table.task == "multilabel":
            called = values[row] >= threshold
            sure = np.where(called == (labels[row] == 1), -1.0, np.where(called, values[row], 1 - values[row]))
            worst = int(sure.argmax())
            if sure[worst] >= 0:
                with_it, without = names[worst], f"no {names[worst]}"
                truth, said = (without, with_it) if called[worst] else (with_it, without)
                found.append(Mistake(file, truth, said, float(sure[worst])))
        elif (answer := int(values[row].argmax())) != labels[row]:
            found.append(Mistake(file, names[int(labels[row])], names[answer], float(values[row, answer])))
    return sorted(found, key=lambda mistake: (-mistake.probability, mistake.file))[:most]


def confident_errors(
    mistakes: Sequence[Mistake], read: Callable[[str], Picture] | None, heading: Heading, wrong: int
) -> Figure:
    """A sheet of wrongly classified images.

    Args:
        mistakes: from :func:`worst_mistakes`.
        read: gives the picture (C, H, W) or volume (C, H, W, D) of a file name; None: there are no images at hand.
        heading: of the figure.
        wrong: how many images are wrong in all.
    """
    title = heading.under(f"The most confident of {wrong} wrongly classified images" if wrong else "No image is wrong")
    if not mistakes:
        figure = new_figure(title, height=1.6)
        axis = figure.subplots()
        axis.set_axis_off()
        say_instead(axis, "There is no error to show.")
        return figure
    figure, axes = _tiles(title, len(mistakes), extra=0.55)
    for axis, mistake in zip(axes, mistakes, strict=True):
        caption = (
            f"{_tail(mistake.file)}\ntruth: {shortened(mistake.truth, 20)}\n"
            f"said: {shortened(mistake.prediction, 16)} ({mistake.probability:.0%})"
        )
        axis.set_title(caption, fontsize=7.5, loc="left", linespacing=1.25)
        _picture_or_reason(axis, mistake.file, read)
    return figure


def training_batch(
    images: npt.NDArray[np.float32], labels: Sequence[str], files: Sequence[str], name: str, size: int
) -> Figure:
    """The first images of a batch as they enter the network: resized, augmented, normalised.

    Args:
        images: (B, C, H, W) or (B, C, H, W, D), of any range; shown from the 1st to the 99th percentile of each.
        labels: B texts.
        files: B file names.
        name: of the data set or run.
        size: of the batch, which may be larger.
    """
    count = min(len(images), MOST_OF_A_BATCH)
    volume = ", middle slices" if images.ndim == 5 else ""
    shape = " x ".join(str(length) for length in images.shape[2:])
    title = f"Training batch after augmentation{volume}\n{shortened(name, 60)}, {count} of {size} images, {shape}"
    figure, axes = _tiles(title, count, extra=0.3)
    for axis, image, label, file in zip(axes, images, labels, files, strict=False):
        axis.set_title(f"{shortened(label, 22)}\n{_tail(file)}", fontsize=7.5, loc="left", linespacing=1.25)
        _show(axis, shown_picture(image, stretched=True))
    return figure


def shown_picture(image: Picture, stretched: bool = False) -> Picture:
    """(H, W) or (H, W, 3) in [0, 1] of (C, H, W), or of the middle slice of (C, H, W, D), made small.

    Args:
        image: what was read; values in [0, 1], of volumes in any range.
        stretched: show the 1st percentile black and the 99th white, as volumes always are.

    Raises:
        DataError: the array is no picture.

    Example:
        >>> shown_picture(np.zeros((1, 640, 320))).shape, shown_picture(np.ones((3, 8, 9, 4))).shape
        ((320, 160), (8, 9, 3))
    """
    array = np.asarray(image, dtype=np.float32)
    if array.ndim == 4:
        array, stretched = array[..., array.shape[-1] // 2], True
    if array.ndim != 3 or array.shape[0] not in (1, 3):
        raise DataError(f"an array of shape {array.shape} is neither a picture nor a volume of 1 or 3 channels")
    if stretched:
        low, high = np.percentile(array, (1, 99))
        array = (array - low) / (high - low if high > low else 1.0)
    array = np.clip(array[0] if len(array) == 1 else np.moveaxis(array, 0, -1), 0, 1)
    return _small(array)


def _small(array: Picture) -> Picture:
    """At most ``LONGEST_SIDE`` pixels long, by averaging."""
    if max(array.shape[:2]) <= LONGEST_SIDE:
        return array
    from PIL import Image

    picture = Image.fromarray(np.rint(array * 255).astype(np.uint8))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX)
    return np.asarray(picture, dtype=np.float32) / 255


def _picture_or_reason(axis: Axes, file: str, read: Callable[[str], Picture] | None) -> None:
    if read is None:
        _show(axis, None)
        say_instead(axis, "image not\nat hand")
        return
    try:
        _show(axis, shown_picture(read(file)))
    except (OSError, DataError) as error:
        reason = type(error).__name__ if isinstance(error, OSError) else error.what
        _show(axis, None)
        say_instead(axis, f"image cannot be read: {shortened(reason, 60)}")


def _tiles(title: str, count: int, extra: float, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """A figure of square tiles with room for captions of ``extra`` inches."""
    rows = math.ceil(count / columns)
    figure = new_figure(title, height=(1.75 + extra) * rows + 0.7)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def _show(axis: Axes, picture: Picture | None) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=picture is None, color=GREY)
    if picture is None:
        axis.set_box_aspect(1)
        return
    axis.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest")


def _tail(file: str, most: int = 26) -> str:
    """A file's path where it fits, else its name, else the end of that, which tells more than its beginning.

    Example:
        >>> _tail("malignant/malignant_123456.jpg"), _tail("x" * 30)
        ('malignant_123456.jpg', '…xxxxxxxxxxxxxxxxxxxxxxxxx')
    """
    text = file if len(file) <= most else file.rsplit("/", 1)[-1]
    return shortened(text if len(text) <= most else f"…{text[-most + 1 :]}", most)
