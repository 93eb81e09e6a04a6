"""Synthetic radiograph-like phantoms with labels, for demonstrations and tests; no patient was ever behind them.

Both classes show the same chest with the same number of small opacities of the same contrast and area: round ones in
"nodules", elongated ones in "vessels". An elongated Gaussian spot and a round one of equal area and height
have the same distribution of grey values, so brightness and histograms do not tell the classes apart, shape does.
Imports numpy; Pillow where files are written.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASS_NAMES", "phantom", "write_phantoms"]

CLASS_NAMES = ("nodules", "vessels")
_OPACITIES = 6  # in every film
_ELONGATION = 6.0


def _ellipse(
    y: NDArray[np.float64], x: NDArray[np.float64], centre: tuple[float, float], radii: tuple[float, float]
) -> NDArray[np.float64]:
    """Smooth mask of an ellipse in a film whose sides run from -1 to 1."""
    distance = np.hypot((y - centre[0]) / radii[0], (x - centre[1]) / radii[1])
    return 1.0 / (1.0 + np.exp((distance - 1.0) * 14.0))


def _chest(rng: np.random.Generator, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Body, two darker lungs, spine and ribs."""
    shift = rng.uniform(-0.05, 0.05, 2)
    film = 0.75 * _ellipse(y, x, (0.25 + shift[0], shift[1]), (1.25, rng.uniform(0.92, 1.0)))
    height, width = rng.uniform(0.62, 0.72), rng.uniform(0.32, 0.37)
    for side in (-1, 1):
        film -= 0.45 * _ellipse(y, x, (shift[0], shift[1] + side * 0.44), (height, width))
    film += 0.12 * np.exp(-(((x - shift[1]) / 0.09) ** 2))
    phase, spacing = rng.uniform(0, 1), rng.uniform(0.23, 0.28)
    ribs = np.cos(2 * np.pi * ((y + 0.35 * (x - shift[1]) ** 2) / spacing + phase))
    return film + 0.05 * np.clip(ribs, 0, 1)


def _opacity(
    rng: np.random.Generator, y: NDArray[np.float64], x: NDArray[np.float64], is_round: bool
) -> NDArray[np.float64]:
    """A Gaussian spot in a lung; area and height are drawn alike for both shapes."""
    side = rng.choice((-1, 1))
    cy, cx = rng.uniform(-0.45, 0.45), side * 0.44 + rng.uniform(-0.17, 0.17)
    size, height, angle = rng.uniform(0.06, 0.08), rng.uniform(0.28, 0.4), rng.uniform(0, np.pi)
    stretch = 1.0 if is_round else np.sqrt(_ELONGATION)
    along = (y - cy) * np.sin(angle) + (x - cx) * np.cos(angle)
    across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    return height * np.exp(-0.5 * ((along / (size * stretch)) ** 2 + (across * stretch / size) ** 2))


def phantom(label: str, seed: int, size: int = 128) -> NDArray[np.uint8]:
    """Draw one synthetic film.

    Args:
        label: a name of :data:`CLASS_NAMES`.
        seed: the same seed gives the same film.
        size: side in pixels.

    Returns:
        (size, size) uint8, rows first.

    Example:
        >>> phantom("nodules", seed=1).shape
        (128, 128)
    """
    rng = np.random.default_rng([seed, CLASS_NAMES.index(label)])
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    film = _chest(rng, y, x)
    for _ in range(_OPACITIES):
        film += _opacity(rng, y, x, is_round=label == "nodules")
    film = film * rng.uniform(0.85, 1.1) + rng.uniform(-0.03, 0.08)
    film += rng.normal(0, 0.02, film.shape)
    return np.asarray(np.clip(film, 0, 1) * 255, dtype=np.uint8)


def write_phantoms(folder: str | os.PathLike[str], per_class: int, seed: int = 0, size: int = 128) -> list[Path]:
    """Write ``<folder>/<class>/phantom_<number>.png`` for every class.

    Args:
        folder: made if it does not exist.
        per_class: films of each class.
        seed: number of the first film; folders written with ranges that do not overlap share no film.
        size: side in pixels.

    Returns:
        The files.
    """
    from PIL import Image

    files = []
    for label in CLASS_NAMES:
        (Path(folder) / label).mkdir(parents=True, exist_ok=True)
        for number in range(seed, seed + per_class):
            files.append(Path(folder) / label / f"phantom_{number:05d}.png")
            Image.fromarray(phantom(label, number, size)).save(files[-1])
    return files
