"""Overlays: what is drawn lies where the map says, with a bar, a title, and colours anybody can tell apart."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.errors import ConfigError
from medmamba_monai.explain.overlay import figure_png, overlay_figure, peak


def overlay_pixels(heat: np.ndarray, signed: bool = False) -> np.ndarray:
    """The coloured layer of the overlay, as it was given to matplotlib: (*size, RGBA)."""
    figure = overlay_figure(np.full((1, *heat.shape), 0.5), heat, "t", signed=signed)
    layers = [image for axis in figure.get_axes() for image in axis.get_images() if image.get_array().shape[-1] == 4]
    return np.asarray(layers[0].get_array())


def test_colour_is_strongest_where_the_map_is() -> None:
    heat = np.zeros((20, 30))
    heat[4:8, 20:26] = 1
    painted = overlay_pixels(heat)
    assert painted.shape == (20, 30, 4)
    assert (painted[..., 3] > 0).sum() == 24
    assert painted[5, 22, 3] > 0.8


def test_signs_are_told_apart_by_lightness_and_hue() -> None:
    heat = np.zeros((10, 10))
    heat[2, 2], heat[7, 7] = 1, -1
    painted = overlay_pixels(heat, signed=True)
    for_it, against = painted[2, 2], painted[7, 7]
    assert for_it[0] > for_it[2]
    assert against[2] > against[0]


def test_the_file_is_a_picture_with_title_and_bar() -> None:
    figure = overlay_figure(np.random.default_rng(0).random((3, 24, 32)), np.eye(24, 32), "a.png\nbenign", unit="x")
    assert figure.get_suptitle() == "a.png\nbenign"
    assert "x" in [axis.get_ylabel() for axis in figure.get_axes()]
    with Image.open(io.BytesIO(figure_png(figure))) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300


def test_a_volume_is_shown_through_its_peak_in_its_proportions() -> None:
    heat = np.zeros((12, 16, 8))
    heat[3, 10, 6] = 1
    figure = overlay_figure(np.zeros((1, 12, 16, 8)), heat, "v", spacing=(1.0, 1.0, 3.0))
    titles = [axis.get_title() for axis in figure.get_axes() if axis.get_title()]
    assert [title.split(", ")[1] for title in titles] == ["slice 7 of 8", "row 4 of 12", "column 11 of 16"]
    aspects = {axis.get_aspect() for axis in figure.get_axes() if axis.get_images()}
    assert {1.0, 3.0} <= aspects


def test_the_edges_of_planes_are_named() -> None:
    volume = np.zeros((1, 12, 16, 8))
    figure = overlay_figure(volume, volume[0], "v", orientation="PLS")
    found = []
    for axis in figure.get_axes():
        if axis.texts:
            at = {text.get_position(): text.get_text() for text in axis.texts}
            found.append([at[place] for place in ((0.5, 0.97), (0.5, 0.03), (0.03, 0.5), (0.97, 0.5))])
    assert found == [["A", "P", "R", "L"], ["S", "I", "R", "L"], ["S", "I", "A", "P"]]
    assert not any(axis.texts for axis in overlay_figure(volume, volume[0], "v").get_axes())


def test_an_empty_map_says_so() -> None:
    figure = overlay_figure(np.zeros((1, 10, 10)), np.zeros((10, 10)), "t")
    assert any("zero everywhere" in str(f.get_supxlabel()) for f in figure.subfigs)


def test_parts_get_panels_of_their_own() -> None:
    parts = [("left to right", np.eye(10)), ("skip", -np.eye(10))]
    figure = overlay_figure(np.zeros((1, 10, 10)), np.eye(10), "t", panels=parts)
    assert {"left to right", "skip"} <= {axis.get_title().partition("\n")[0] for axis in figure.get_axes()}


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ConfigError, match="map"):
        overlay_figure(np.zeros((1, 10, 10)), np.zeros((10, 11)), "t")
    assert peak(np.array([[0, 1], [5, 2]])) == (1, 0)


def test_a_volume_of_any_range_looks_the_same() -> None:
    volume = np.random.default_rng(0).random((1, 10, 12, 8))
    shown = [
        [
            np.asarray(image.get_array())
            for axis in overlay_figure(v, volume[0], "t").get_axes()
            for image in axis.get_images()
        ]
        for v in (volume, volume * 1000 - 200)
    ]
    assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(*shown, strict=True))
    assert 0.3 < shown[1][0].mean() < 0.7
    sparse = np.zeros((1, 20, 20, 20))
    sparse[0, 3, 10, 6], sparse[0, 3, 10, 5] = 800, 400
    picture = overlay_figure(sparse, sparse[0], "t").get_axes()[0].get_images()[0].get_array()
    assert sorted(np.unique(picture)) == [0, 1]


def test_names_are_taken_literally_and_long_ones_keep_their_end() -> None:
    figure = overlay_figure(
        np.zeros((1, 10, 10)), np.eye(10), f"$\\foo$.png\n{'p' * 150}.png", panels=[("a$_$", np.eye(10))]
    )
    figure_png(figure)
    first, second = figure.get_suptitle().split("\n")
    assert first == "$\\foo$.png"
    assert len(second) == 100
    assert (second[0], second[-6:]) == ("…", "pp.png")
