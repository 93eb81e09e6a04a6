"""All files of an evaluation, small and readable; hostile names, several labels, classes without images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.errors import DataError
from medmamba_monai.figures import NAMES, Heading, draw_batch, draw_evaluation, draw_history
from medmamba_monai.figures.style import DPI, WIDTH
from medmamba_monai.metrics import report_of

from .conftest import HOSTILE


@pytest.mark.parametrize(
    "options", [{"names": HOSTILE, "empty": (2,), "grouped": False}, {"names": HOSTILE, "task": "multilabel"}]
)
@pytest.mark.filterwarnings("ignore:Glyph")  # the font of figures has no Chinese: such names show as boxes
def test_every_figure(table: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    given = table(**options)
    metrics = report_of(given.task)(given.labels, given.probabilities, given.class_names)
    heading = Heading("<b>$name", "test", len(given.files))
    files = draw_evaluation(tmp_path / "figures", given, metrics, heading, lambda file: np.ones((1, 5, 5)))
    files.append(draw_history(tmp_path / "figures", [{"epoch": 1.0, "train_loss": 1.0}], "a"))
    files.append(draw_batch(tmp_path / "figures", np.ones((2, 3, 8, 8)), ["a", "b"], ["1", "2"], "a", 2))
    assert sorted(path.stem for path in files) == sorted(NAMES)
    for path in files:
        assert path.stat().st_size < 500_000
        with Image.open(path) as picture:
            assert picture.width <= WIDTH * DPI * 1.7
            assert np.asarray(picture.convert("L")).std() > 3


def test_without_labels_there_is_nothing_to_draw(table: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(DataError, match="no labels"):
        draw_evaluation(tmp_path, replace(table(), labels=None), {}, Heading("a", "test", 1))
