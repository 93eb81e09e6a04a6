"""The matrix shows scikit-learn's counts and rates, with text that can be read on its colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from sklearn.metrics import confusion_matrix as reference
from sklearn.metrics import multilabel_confusion_matrix

from medmamba_monai.figures import Heading
from medmamba_monai.figures.confusion import confusion_matrix, rates_of
from medmamba_monai.metrics import report_of

from .conftest import MANY


def report(table: Any) -> dict[str, Any]:
    return report_of(table.task)(table.labels, table.probabilities, table.class_names)


def written(axis: Any, size: int) -> np.ndarray:
    counts = np.zeros((size, size), dtype=int)
    for text in axis.texts:
        if text.get_text() != "no images":
            column, row = (int(value) for value in text.get_position())
            counts[row, column] = int(text.get_text().split("\n")[0] or 0)
    return counts


@pytest.mark.parametrize("names", [["benign", "malignant"], MANY])
def test_counts_and_rates(table: Any, heading: Heading, names: list[str]) -> None:
    given = table(names)
    axis = confusion_matrix(report(given), heading).axes[0]
    truth, said = given.labels, given.probabilities.argmax(axis=1)
    labels = list(range(len(names)))
    assert (written(axis, len(names)) == reference(truth, said, labels=labels)).all()
    np.testing.assert_allclose(
        np.asarray(axis.images[0].get_array()), reference(truth, said, labels=labels, normalize="true")
    )


def test_several_labels(table: Any, heading: Heading) -> None:
    given = table(["a", "b", "c"], task="multilabel")
    expected = multilabel_confusion_matrix(given.labels, given.probabilities >= 0.5)
    for axis, counts in zip(confusion_matrix(report(given), heading).axes, expected, strict=True):
        assert (written(axis, 2) == counts).all()


def test_a_class_without_images(table: Any, heading: Heading) -> None:
    given = table(["a", "b", "c"], empty=(1,))
    axis = confusion_matrix(report(given), heading).axes[0]
    assert [text.get_position() for text in axis.texts if text.get_text() == "no images"] == [(1.0, 1)]
    assert np.isnan(rates_of(np.zeros((2, 2), dtype=np.int64))).all()


def test_text_stands_out(heading: Heading) -> None:
    counts = [[number, 20 - number] for number in range(21)]
    square = np.zeros((21, 21), dtype=int)
    square[:, :2] = counts
    axis = confusion_matrix(
        {"confusion_matrix": square.tolist(), "class_names": [str(number) for number in range(21)]}, heading
    ).axes[0]
    image = axis.images[0]

    def luminance(colour: Any) -> float:
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
        return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))

    for text in axis.texts:
        column, row = (int(value) for value in text.get_position())
        behind, front = luminance(image.cmap(image.norm(square[row, column] / 20))[:3]), luminance(text.get_color())
        assert (max(behind, front) + 0.05) / (min(behind, front) + 0.05) >= 4.5
