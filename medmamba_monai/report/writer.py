"""Figures and page as handlers of the bundles' engines, and as one function for the files alone. Used by configs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from medmamba_monai.errors import DataError, MedMambaError
from medmamba_monai.handlers import read_history
from medmamba_monai.handlers.files import write_atomic
from medmamba_monai.handlers.history import HISTORY_NAME
from medmamba_monai.handlers.hooks import as_flag, is_rank_zero
from medmamba_monai.report.run import data_name, read_run

__all__ = ["REPORT_NAME", "ReportWriter", "TrainingFigures", "first_picture", "make_report"]

REPORT_NAME = "report.html"

logger = logging.getLogger(__name__)


def make_report(folder: Path, split: str | None = None, read: Callable[[str], Any] | None = None) -> Path:
    """Draw the figures of an evaluation and write its page, from its files.

    Args:
        folder: output_dir of the evaluation.
        split: which part was evaluated; None: as the files tell.
        read: gives the picture (C, H, W) or volume (C, H, W, D) of a file name; None: the images are not at hand.

    Returns:
        The page.

    Raises:
        DataError: predictions or metrics are missing, or files are damaged.
        CheckpointError: the folder cannot be written.
    """
    # here, because drawing is heavy and most runs of a config do not draw
    from medmamba_monai.figures import FOLDER, Heading, draw_evaluation, draw_history
    from medmamba_monai.report.page import build_page, render

    run = read_run(folder, split)
    heading = Heading(run.name, run.split, len(run.table.files))
    draw_evaluation(folder / FOLDER, run.table, run.metrics, heading, read)
    if run.history:
        draw_history(folder / FOLDER, run.history, run.name)
    text = render(build_page(run))
    path = folder / REPORT_NAME
    write_atomic(path, lambda stream: stream.write(text.encode("utf-8", errors="replace")))
    return path


def first_picture(preprocessing: Any, path: str) -> Any:
    """What the first step of a preprocessing makes of a file: the picture as it was read, before it is resized.

    Args:
        preprocessing: a MONAI ``Compose`` of dictionary transforms.
        path: of the file.

    Raises:
        DataError: the file cannot be read, or no step reads it.
    """
    item: dict[Any, Any] = {"image": path}
    for step in preprocessing.flatten().transforms:
        item = step(item)
        if hasattr(item["image"], "shape"):
            return np.asarray(item["image"])
    raise DataError("no step of the preprocessing reads an image", where=path, remedy="begin it with ReadImaged")


class ReportWriter:
    """Evaluator handler: makes figures/ and report.html of the files that stand before it in the list have written.

    Only the process of rank 0 writes. Predictions and metrics are safe when this begins.

    Args:
        output_dir: folder of the evaluation.
        split: which part is evaluated.
        items: {"file", "image"} of the evaluated images.
        preprocessing: a MONAI ``Compose`` whose first step reads images.
        enabled: False makes this handler do nothing.

    Raises:
        DataError: the report could not be made: saying why, and how to try again.

    Example:
        >>> ReportWriter("out", enabled="false").enabled
        False
    """

    def __init__(
        self,
        output_dir: str | Path,
        split: str | None = None,
        items: Sequence[Mapping[str, Any]] = (),
        preprocessing: Any = None,
        enabled: bool | str = True,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.split = split
        self.items = items
        self.preprocessing = preprocessing
        self.enabled = as_flag(enabled, "report")

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        if self.enabled and is_rank_zero():
            engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Make the report."""
        paths = {str(item["file"]): str(item["image"]) for item in self.items}

        def read(file: str) -> Any:
            return first_picture(self.preprocessing, paths[file])

        try:
            path = make_report(self.output_dir, self.split, None if self.preprocessing is None else read)
        except Exception as error:
            reason = str(error) if isinstance(error, MedMambaError) else f"{type(error).__name__}: {error}"
            raise DataError(
                f"predictions and metrics are written, but not the report: {reason}",
                where=str(self.output_dir),
                remedy="then run `python -m medmamba_monai report OUTPUT_DIR`, or evaluate with --report false",
            ) from error
        logger.info("wrote %s", path)


class TrainingFigures:
    """Trainer handler: the first batch as the network sees it, and at the end the curves of history.csv.

    Only the process of rank 0 draws. A picture that cannot be drawn is logged: no training is lost for it.

    Args:
        output_dir: of the training; pictures go into its folder figures.
        class_names: in the order of the labels.
        dataset_dir: folder of the images, whose last part names the data.
        data_source: {"name": ...} of a published data set.
        enabled: False makes this handler do nothing.

    Example:
        >>> TrainingFigures("out", ["cyst", "mass"], dataset_dir="/scans/ultrasound").name
        'ultrasound'
    """

    def __init__(
        self,
        output_dir: str | Path,
        class_names: Sequence[str],
        dataset_dir: str | Path | None = None,
        data_source: Mapping[str, Any] | None = None,
        enabled: bool | str = True,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = [str(name) for name in class_names]
        self.name = data_name(dataset_dir, data_source)
        self.enabled = as_flag(enabled, "report")
        self._drawn = False

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.enabled and is_rank_zero():
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
            engine.add_event_handler(Events.COMPLETED, self._completed)

    def _iteration_completed(self, engine: Engine) -> None:
        if not self._drawn:
            self._drawn = True
            self._draw("training_batch", lambda folder: self._batch(engine, folder))

    def _batch(self, engine: Engine, folder: Path) -> None:
        from medmamba_monai.figures import draw_batch

        batch = _as_mapping(engine.state.batch)
        images = np.stack([np.asarray(image, dtype=np.float32) for image in batch["image"]])
        labels = [self._label(label) for label in batch["label"]]
        files = [str(file) for file in batch.get("file", [""] * len(images))]
        draw_batch(folder, images, labels, files, self.name, len(images))

    def _label(self, label: Any) -> str:
        values = np.asarray(label).ravel()
        if values.size == 1:
            return self.class_names[int(values[0])]
        names = [name for name, flag in zip(self.class_names, values, strict=True) if flag]
        return ", ".join(names) or "No Finding"

    def _completed(self, engine: Engine) -> None:
        from medmamba_monai.figures import draw_history

        history = self.output_dir / HISTORY_NAME
        if history.is_file():
            self._draw("curves", lambda folder: draw_history(folder, read_history(history), self.name))

    def _draw(self, name: str, draw: Callable[[Path], object]) -> None:
        from medmamba_monai.figures import FOLDER

        try:
            draw(self.output_dir / FOLDER)
        except (MedMambaError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
            logger.warning("%s could not be drawn: %s", name, error)


def _as_mapping(batch: Any) -> Mapping[str, Any]:
    """A batch, or the list of items that an engine made of it."""
    if isinstance(batch, Mapping):
        return batch
    return {key: [item[key] for item in batch] for key in batch[0]}
