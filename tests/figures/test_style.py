"""Sizes, headings and colours; nothing of matplotlib's state changes."""

from __future__ import annotations

import ast
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from medmamba_monai.figures import style
from medmamba_monai.figures.style import (
    COLOURS,
    DPI,
    GREY,
    Heading,
    house_style,
    new_figure,
    panels,
    save,
    say_instead,
    shortened,
)


def luminance(colour: str) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))


def test_saved_at_its_size_and_without_a_trace(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    with house_style():
        figure = new_figure("title", 4, 3)
        figure.subplots().plot([0, 1])
        save(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (4 * DPI, 3 * DPI)
        assert picture.mode == "RGB"
        assert len(set(np.asarray(picture).reshape(-1, 3)[:, 0].tolist())) > 5
    assert dict(matplotlib.rcParams) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_pyplot_is_not_used() -> None:
    """It keeps figures alive and wants a display; MONAI loads it, so that it cannot be looked for in sys.modules."""
    folder = Path(style.__file__).parent
    for file in folder.rglob("*.py"):
        names = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Import)]
        assert "pyplot" not in ast.unparse(ast.Module([*names], [])), file
        assert "from matplotlib import pyplot" not in file.read_text(encoding="utf-8"), file


def test_panels_name_the_outer_axes_only() -> None:
    figure, axes = panels("title", list("abcde"), "x", "y", columns=3)
    assert len(axes) == 5
    assert len(figure.axes) == 6
    assert [axis.get_ylabel() for axis in axes] == ["y", "", "", "y", ""]
    assert [axis.get_xlabel() for axis in axes] == ["", "", "x", "x", "x"]  # nothing is below the third
    assert not figure.axes[5].axison


def test_colours_can_be_told_apart_and_read() -> None:
    assert len(set(COLOURS)) == len(COLOURS)
    assert 1.05 / (luminance(GREY) + 0.05) >= 4.5  # WCAG 2, text on white
    assert all(1.05 / (luminance(colour) + 0.05) >= 2 for colour in COLOURS)


def test_heading_says_name_part_and_number() -> None:
    assert Heading("x" * 100, "test", 5).under("T").splitlines()[1].endswith("…, test part, n = 5 images")


@pytest.mark.parametrize(("name", "short"), [("a  b\nc", "a b c"), ("x" * 30, "x" * 23 + "…"), ("_a", " _a")])
def test_shortened(name: str, short: str) -> None:
    assert shortened(name) == short


def test_a_dollar_is_a_dollar(tmp_path: Path) -> None:
    with house_style():
        figure = new_figure("costs $\\undefined$")
        say_instead(figure.subplots(), "a $ b $")
        save(figure, tmp_path / "a.png")
    with pytest.raises(ValueError, match="undefined"):
        figure = new_figure("costs $\\undefined$")  # outside the house style, matplotlib reads formulas
        save(figure, tmp_path / "b.png")
