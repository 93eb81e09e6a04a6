"""What the panels show, compared with scikit-learn's curves and counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from medmamba_monai.figures import Heading
from medmamba_monai.figures.classwise import precision_recall, roc, score_histograms
from medmamba_monai.figures.style import MOST_PANELS
from medmamba_monai.metrics import report_of

from .conftest import HOSTILE, MANY


def report(table: Any) -> dict[str, Any]:
    return report_of(table.task)(table.labels, table.probabilities, table.class_names)


def of_class(table: Any, number: int) -> np.ndarray:
    return table.labels[:, number] if table.task == "multilabel" else table.labels == number


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_curves_are_scikit_learns(table: Any, heading: Heading, task: str) -> None:
    given = table(["a", "b", "c"], task=task)
    metrics = report(given)
    for number, axis in enumerate(roc(given, metrics, heading).axes):
        x, y = axis.lines[1].get_data()
        false, true, _ = roc_curve(of_class(given, number), given.probabilities[:, number], drop_intermediate=False)
        np.testing.assert_array_equal(x, false)
        np.testing.assert_array_equal(y, true)
        assert f"AUC {metrics['per_class']['abc'[number]]['auc']:.3f}" in axis.get_title()
        assert len(axis.collections) == 1  # the band
    for number, axis in enumerate(precision_recall(given, metrics, heading).axes):
        precision, recall, _ = precision_recall_curve(of_class(given, number), given.probabilities[:, number])
        np.testing.assert_array_equal(axis.lines[1].get_xdata(), recall)
        np.testing.assert_array_equal(axis.lines[1].get_ydata(), precision)
        assert axis.lines[0].get_ydata()[0] == of_class(given, number).mean()


def test_intervals_stand_in_the_titles(table: Any, heading: Heading) -> None:
    given = table()
    metrics = report(given)
    metrics["per_class"]["benign"]["intervals"] = {"auc": [0.25, 0.75]}
    titles = [axis.get_title() for axis in roc(given, metrics, heading).axes]
    assert "[0.250, 0.750]" in titles[0]
    assert "[" not in titles[1]


def test_histograms_hold_every_image(table: Any, heading: Heading) -> None:
    given = table(["a", "b"])
    for number, axis in enumerate(score_histograms(given, report(given), heading).axes):
        inside = of_class(given, number)
        expected = np.histogram(given.probabilities[inside, number], np.linspace(0, 1, 21))[0] / inside.sum()
        outline = axis.patches[3].get_xy()  # others filled and outlined, then the class
        heights = outline[1:-1:2, 1]
        np.testing.assert_allclose(heights, expected, atol=1e-12)
        assert f"n = {inside.sum()}, others {(~inside).sum()}" in axis.get_title()


@pytest.mark.parametrize("draw", [roc, precision_recall, score_histograms])
def test_a_class_without_images_is_said(table: Any, heading: Heading, draw: Any) -> None:
    given = table(HOSTILE, empty=(1,))
    figure = draw(given, report(given), heading)
    told = " ".join(text.get_text() for axis in figure.axes for text in [*axis.texts, axis.title])
    assert "no image has" in told or "n = 0" in told


def test_too_many_classes(table: Any, heading: Heading) -> None:
    given = table([f"class {number}" for number in range(MOST_PANELS + 6)], count=200)
    figure = roc(given, report(given), heading)
    assert len(figure.axes) == MOST_PANELS
    assert "6 rare classes left out" in figure.get_suptitle()
    shown = {int(axis.get_title().split()[1]) for axis in figure.axes}
    counts = np.bincount(given.labels, minlength=MOST_PANELS + 6)
    left_out = set(range(MOST_PANELS + 6)) - shown
    assert max(counts[list(left_out)]) <= min(counts[list(shown)])


def test_one_class_only(table: Any, heading: Heading) -> None:
    given = table(["a", "b"], empty=(1,))
    for axis in roc(given, report(given), heading).axes:
        assert "image has" in axis.texts[0].get_text()
    assert len(roc(table(MANY), report(table(MANY)), heading).axes) == 12  # eleven, and a place that is switched off
