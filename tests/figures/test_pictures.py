"""Sheets of images: the right ones, in order, shown as they are; what cannot be read is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medmamba_monai.errors import DataError
from medmamba_monai.figures import Heading
from medmamba_monai.figures.pictures import (
    LONGEST_SIDE,
    MOST_ERRORS,
    confident_errors,
    shown_picture,
    training_batch,
    worst_mistakes,
)


def test_worst_mistakes_of_one_class_an_image(table: Any) -> None:
    given = table(["a", "b", "c"])
    said = given.probabilities.argmax(axis=1)
    wrong = [(-given.probabilities[row, said[row]], given.files[row]) for row in np.flatnonzero(said != given.labels)]
    found = worst_mistakes(given)
    assert [mistake.file for mistake in found] == [file for _, file in sorted(wrong)][:MOST_ERRORS]
    row = given.files.index(found[0].file)
    assert found[0].truth == "abc"[given.labels[row]]
    assert found[0].prediction == "abc"[said[row]]
    assert found[0].probability == given.probabilities[row].max()


def test_worst_mistakes_of_several(table: Any) -> None:
    given = table(["a", "b", "c"], task="multilabel")
    found = worst_mistakes(given, 0.4, most=1000)
    called = given.probabilities >= 0.4
    assert len(found) == int((called != given.labels).any(axis=1).sum())
    row = given.files.index(found[0].file)
    number = "abc".index(found[0].truth[-1])
    assert (found[0].truth, found[0].prediction) == (
        (f"no {'abc'[number]}", "abc"[number]) if called[row, number] else ("abc"[number], f"no {'abc'[number]}")
    )
    value = given.probabilities[row, number]
    assert found[0].probability == pytest.approx(value if called[row, number] else 1 - value)


def test_the_sheet_shows_the_files(table: Any, heading: Heading) -> None:
    mistakes = worst_mistakes(table())
    pictures = {mistake.file: np.full((1, 8, 9), number / 20) for number, mistake in enumerate(mistakes)}
    axes = confident_errors(mistakes, pictures.__getitem__, heading, len(mistakes)).axes
    for number, mistake in enumerate(mistakes):
        assert np.asarray(axes[number].images[0].get_array()).max() == pytest.approx(number / 20)
        title = axes[number].get_title(loc="left")
        assert mistake.file in title
        assert f"truth: {mistake.truth}" in title
        assert f"said: {mistake.prediction} ({mistake.probability:.0%})" in title


def test_images_that_are_gone(table: Any, heading: Heading) -> None:
    def gone(file: str) -> Any:
        raise FileNotFoundError(file)

    mistakes = worst_mistakes(table())
    for read, told in ((None, "not\nat hand"), (gone, "cannot be read: FileNotFoundError")):
        axis = confident_errors(mistakes, read, heading, 12).axes[0]
        assert told in axis.texts[0].get_text()
        assert not axis.images
    assert "No image is wrong" in confident_errors([], None, heading, 0).get_suptitle()


@pytest.mark.parametrize("shape", [(1, 40, 30), (3, 40, 30), (1, 40, 30, 7)])
def test_training_batch(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32)
    figure = training_batch(images, [f"c{n}" for n in range(20)], [f"{n}.png" for n in range(20)], "Data", 32)
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 16
    assert "16 of 32 images" in figure.get_suptitle()
    assert ("middle slices" in figure.get_suptitle()) == (len(shape) == 4)
    assert shown[3].get_title(loc="left") == "c3\n3.png"
    array = np.asarray(shown[3].images[0].get_array())
    assert array.shape == ((40, 30) if shape[0] == 1 else (40, 30, 3))
    original = images[3][..., 3] if len(shape) == 4 else images[3]
    assert np.corrcoef(array.ravel(), np.moveaxis(original, 0, -1).ravel())[0, 1] > 0.98


def test_shown_picture() -> None:
    assert shown_picture(np.ones((1, 2000, 1000))).shape == (LONGEST_SIDE, LONGEST_SIDE // 2)
    assert shown_picture(np.full((3, 4, 4), 7.0)).max() == 1  # cut, not wrapped
    volume = np.zeros((1, 4, 4, 5))
    volume[..., 2] = np.arange(16).reshape(4, 4)
    assert shown_picture(volume).argmax() == 15
    with pytest.raises(DataError, match="neither a picture nor"):
        shown_picture(np.ones((2, 4, 4)))
