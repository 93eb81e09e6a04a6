"""An explanation as a figure: the image, the map over it, a colour bar, what it says. matplotlib is imported to draw.

Colours are chosen to be told apart with any colour vision: inferno for maps that start at zero, blue to red for signed
ones. A contour at half of the strongest value says the same without colours.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure_png", "overlay_figure", "peak"]

_SEQUENTIAL, _DIVERGING = "inferno", "RdBu_r"
_STRONGEST = 99.9  # percentile that gets the strongest colour, so that a few pixels do not pale the rest
_OPACITY = 0.85
_LONGEST_LINE = 100  # characters of a title that fit above the narrowest figure
_AXES = ("rows", "columns", "slices")
_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
Array = NDArray[np.float32]


def peak(heat: NDArray[Any]) -> tuple[int, ...]:
    """Position of the largest value.

    Example:
        >>> peak(np.array([[0.0, 1.0], [3.0, 2.0]]))
        (1, 0)
    """
    return tuple(int(place) for place in np.unravel_index(int(np.argmax(heat)), heat.shape))


def overlay_figure(
    image: NDArray[Any],
    heat: NDArray[Any],
    title: str,
    unit: str = "",
    signed: bool = False,
    spacing: Sequence[float] | None = None,
    panels: Sequence[tuple[str, NDArray[Any]]] = (),
    orientation: str = "",
) -> Figure:
    """Draw an image beside the same image under its map; a volume as three planes through the map's peak.

    Args:
        image: (C, H, W) in [0, 1] or (C, H, W, D) of any range, shown from its 1st to its 99th percentile; one channel
            or three.
        heat: the map, (H, W) or (H, W, D).
        title: above everything, taken literally; of lines that are too long the end is shown.
        unit: of the map, at the colour bar.
        signed: whether zero lies in the middle of the colours.
        spacing: of a volume's voxels in mm along each axis, for the shape of its planes.
        panels: names and maps of parts, drawn small in a row of their own, each with a colour scale of its own;
            pictures only.
        orientation: the sides that a volume's axes run towards, such as "PLS", to be named at the edges of its planes.

    Raises:
        ConfigError: image and map do not fit together.
    """
    from matplotlib.figure import Figure

    if image.shape[1:] != heat.shape or heat.ndim not in (2, 3) or len(image) not in (1, 3):
        raise ConfigError(f"an image {image.shape} and a map {heat.shape}", remedy="give (C, *spatial) and (*spatial)")
    views = _views(image, heat, spacing, orientation)
    ratio = max(0.4, min(2.5, sum(view.height / view.width for view in views) / len(views)))
    side = 3.4 if len(views) > 1 else 4.6
    figure = Figure(figsize=(side * (3 if len(views) > 1 else 2) + 1.0, 0.9), dpi=150, layout="constrained")
    tall = side * ratio * (2 if len(views) > 1 else 1)
    low = 0.0 if not panels else figure.get_figwidth() / (len(panels) + 0.6) * ratio + 0.5
    figure.set_figheight(tall + low + 0.8)
    lines = [line if len(line) <= _LONGEST_LINE else f"…{line[1 - _LONGEST_LINE :]}" for line in title.split("\n")]
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False)  # a dollar in a name is a dollar
    heights = [tall, low] if panels else [tall]
    parts: Any = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
    if _draw(parts[0, 0], views, unit, signed) == 0:
        parts[0, 0].supxlabel("the map is zero everywhere: nothing in this image speaks for the class", fontsize=9)
    if panels:
        _draw_panels(parts[1, 0], image, panels)
    return figure


class _View:
    """A plane to draw: picture (H, W) or (H, W, 3), map (H, W), size of a pixel, name, sides below and at the right."""

    def __init__(self, picture: Array, heat: Array, pixel: tuple[float, float], name: str, edges: str = "") -> None:
        self.picture, self.heat, self.name, self.edges = picture, heat, name, edges
        self.aspect = pixel[0] / pixel[1]
        self.height, self.width = heat.shape[0] * self.aspect, heat.shape[1]


def _views(
    image: NDArray[Any], heat: NDArray[Any], spacing: Sequence[float] | None, orientation: str = ""
) -> list[_View]:
    if heat.ndim == 2:
        return [_View(np.moveaxis(np.clip(image, 0, 1), 0, -1), heat, (1.0, 1.0), "")]
    shown = np.moveaxis(_stretched(image), 0, -1)
    sizes = [1.0] * 3 if spacing is None else [float(size) for size in spacing]
    place, views = peak(heat), []
    for axis in (2, 0, 1):
        rest = [other for other in range(3) if other != axis]
        picture, plane = np.take(shown, place[axis], axis), np.take(heat, place[axis], axis)
        edges = "".join(orientation[other] for other in rest) if orientation else ""
        if axis != 2:  # slices run upwards in planes that are cut across them
            picture, plane, rest = picture.swapaxes(0, 1)[::-1], plane.T[::-1], rest[::-1]
            edges = _OPPOSITE[edges[1]] + edges[0] if edges else ""
        name = f"{_AXES[rest[0]]} and {_AXES[rest[1]]}, {_AXES[axis][:-1]} {place[axis] + 1} of {heat.shape[axis]}"
        views.append(_View(picture, plane, (sizes[rest[0]], sizes[rest[1]]), name, edges))
    return views


def _stretched(volume: NDArray[Any]) -> Array:
    """A volume of any range in [0, 1], by its percentiles; by its extremes where nearly all of it is ground."""
    low, high = np.percentile(volume, (1, 99))
    if high <= low:
        low, high = volume.min(), volume.max()
    return np.asarray(np.clip((volume - low) / (high - low if high > low else 1.0), 0, 1), dtype=np.float32)


def _draw(figure: Any, views: list[_View], unit: str, signed: bool) -> float:
    """Images above (or left of) the overlays; returns the value of the strongest colour."""
    count = len(views)
    axes = np.atleast_1d(figure.subplots(2, count) if count > 1 else figure.subplots(1, 2)).reshape(2, count)
    strongest = max(_strongest(view.heat) for view in views)
    drawn = None
    for view, plain, covered in zip(views, axes[0], axes[1], strict=True):
        _picture(plain, view)
        plain.set_title(view.name, fontsize=8)
        _name_edges(plain, view.edges)
        _picture(covered, view)
        drawn = _heat(covered, view.heat, strongest, signed)
    bar = figure.colorbar(drawn, ax=axes[1].tolist() if count > 1 else axes.ravel().tolist(), shrink=0.85)
    bar.set_label(unit, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return strongest


def _name_edges(axis: Any, edges: str) -> None:
    """Letters at the four edges of a plane, of the sides below and at the right and of those opposite."""
    if not edges:
        return
    below, right = edges[0], edges[1]
    places = ((0.5, 0.03, below), (0.97, 0.5, right), (0.5, 0.97, _OPPOSITE[below]), (0.03, 0.5, _OPPOSITE[right]))
    box = {"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0}
    for x, y, side in places:
        axis.text(x, y, side, transform=axis.transAxes, color="white", fontsize=8, ha="center", va="center", bbox=box)


def _draw_panels(figure: Any, image: NDArray[Any], panels: Sequence[tuple[str, NDArray[Any]]]) -> None:
    """Parts side by side, each with a scale of its own, as they may differ by orders of magnitude."""
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axis, (name, heat) in zip(axes, panels, strict=True):
        view, strongest = _views(image, heat, None)[0], _strongest(heat)
        _picture(axis, view)
        _heat(axis, heat, strongest, signed=True)
        axis.set_title(f"{name}\n\u00b1{strongest:.1e}", fontsize=7, parse_math=False)


def _strongest(heat: NDArray[Any]) -> float:
    return float(np.percentile(np.abs(heat), _STRONGEST)) or float(np.abs(heat).max())


def _picture(axis: Any, view: _View) -> None:
    grey = view.picture.shape[-1] == 1
    axis.imshow(
        view.picture[..., 0] if grey else view.picture,
        cmap="gray",
        vmin=0,
        vmax=1,
        aspect=view.aspect,
        interpolation="nearest",
    )
    axis.set_axis_off()


def _heat(axis: Any, heat: NDArray[Any], strongest: float, signed: bool) -> Any:
    """Lay the map over a picture, transparent where it is zero; returns what a colour bar needs."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = strongest or 1.0
    norm = Normalize(-scale if signed else 0.0, scale)
    colours = ScalarMappable(norm, colormaps[_DIVERGING if signed else _SEQUENTIAL])
    painted = colours.to_rgba(heat)
    painted[..., 3] = _OPACITY * np.clip(np.abs(heat) / scale, 0, 1) ** 0.7
    axis.imshow(painted, aspect=axis.get_images()[0].axes.get_aspect(), interpolation="nearest")
    if strongest > 0 and heat.max() > 0.5 * scale:
        axis.contour(heat, levels=[0.5 * scale], colors="white", linewidths=0.8)
    return colours


def figure_png(figure: Figure) -> bytes:
    """Render a figure as PNG, without a display and without pyplot's global state."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
