"""Synthetic pictures and volumes in which it is known where the evidence lies; no patient was ever behind them.

A planted lesion is one dark spot among bright ones: what a network learns from, and where an explanation has to point.
Imports numpy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASS_NAMES", "PlantedLesion", "planted_lesion"]

CLASS_NAMES = ("clear", "lesion")
_BRIGHT = 3  # most bright spots; the number varies from zero, or counting them would find the lesion
_SPOT_SIZE = {2: 0.13, 3: 0.25}  # mean standard deviation, where half a side is 1
_LESION_RADIUS = 2.0  # of the mask, in standard deviations: there a spot has lost 86 % of its height


class PlantedLesion(NamedTuple):
    """One synthetic image and where its lesion lies.

    Attributes:
        image: float32 in [0, 1], ``size`` along each axis, rows first.
        mask: bool, same shape: the pixels of the lesion; empty in the class "clear".
    """

    image: NDArray[np.float32]
    mask: NDArray[np.bool_]


def planted_lesion(label: str, seed: int, size: int = 64, spatial_dims: int = 2) -> PlantedLesion:
    """Draw tissue with up to three bright spots, in the class "lesion" with a dark one too.

    The dark spot is the lesion. It differs from the tissue as much as the others do, has their size and lies anywhere
    as they do: neither contrast nor place gives it away, only its sign.

    Args:
        label: a name of :data:`CLASS_NAMES`.
        seed: the same seed gives the same image.
        size: side in pixels.
        spatial_dims: 2 for a picture, 3 for a volume.

    Example:
        >>> clear, lesion = planted_lesion("clear", seed=1), planted_lesion("lesion", seed=1)
        >>> bool(clear.mask.any()), 0.03 < float(lesion.mask.mean()) < 0.08
        (False, True)
    """
    rng = np.random.default_rng([seed, CLASS_NAMES.index(label), spatial_dims])
    shape, broadcast = (size,) * spatial_dims, (-1, *[1] * spatial_dims)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * spatial_dims, indexing="ij"))
    phases, waves = rng.uniform(0, 2 * np.pi, 4), rng.normal(0, 2.0, (4, spatial_dims))
    texture = np.cos(np.tensordot(waves, grid, 1) + phases.reshape(broadcast)).mean(0)
    image = 0.5 + rng.uniform(0, 0.08) * texture
    mask = np.zeros(shape, dtype=bool)
    bright = int(rng.integers(0, _BRIGHT + 1))
    for number, centre in enumerate(_scattered(rng, bright + (label == "lesion"), spatial_dims)):
        distance = np.sqrt(((grid - centre.reshape(broadcast)) ** 2).sum(0))
        width, height = rng.uniform(0.9, 1.1) * _SPOT_SIZE[spatial_dims], rng.uniform(0.3, 0.4)
        spot = height * np.exp(-0.5 * (distance / width) ** 2)
        if label == "lesion" and number == 0:
            mask = distance <= _LESION_RADIUS * width
            spot *= -1
        image += spot
    image += rng.normal(0, rng.uniform(0.002, 0.02), shape)
    return PlantedLesion(np.clip(image, 0, 1).astype(np.float32), mask)


def _scattered(rng: np.random.Generator, count: int, spatial_dims: int) -> NDArray[np.float64]:
    """Centres (count, axes) that keep a distance from each other; drawn until they do."""
    while True:
        centres = rng.uniform(-0.78, 0.78, (count, spatial_dims))
        gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
        if (gaps + 9 * np.eye(count)).min(initial=9) > 0.45:
            return centres
