"""Occlusion (arXiv 1311.2901): what a class loses when a part of the image is covered. Imports the score.

MONAI's OcclusionSensitivity takes one image at a time, covers it with zeros whatever zero means after normalisation,
gives probabilities, which saturate, and of images with one channel takes a sigmoid where the network has a softmax.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .score import log_odds

__all__ = ["default_patch", "occlusion"]

_WIDTH = 0.25  # standard deviation of the cover, in sides of the patch


def default_patch(size: Sequence[int]) -> list[int]:
    """An eighth of each side of a picture, a quarter of a volume's, at least 4 pixels.

    Example:
        >>> default_patch([224, 96]), default_patch([64, 64, 20])
        ([28, 12], [16, 16, 5])
    """
    share = 8 if len(size) == 2 else 4
    return [max(4, side // share) for side in size]


def occlusion(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    task: str = "multiclass",
    patch: int | Sequence[int] | None = None,
    overlap: float = 0.5,
    batch_size: int = 32,
) -> Tensor:
    """How far the class's log-odds fall when a smooth patch around each pixel takes the image's mean.

    Where patches overlap, each counts as much as it covers.

    Args:
        network: in evaluation mode.
        images: (B, C, *spatial).
        targets: (B,) int64.
        task: see :func:`~.score.log_odds`.
        patch: side of the patch in pixels, one number or one for each axis; None for :func:`default_patch`.
        overlap: of neighbouring patches, 0 to below 1.
        batch_size: covered images in a pass.

    Returns:
        (B, 1, *spatial); positive where the image speaks for the class.

    Raises:
        ConfigError: a patch that is larger than the image, or an overlap out of range.
    """
    size = list(images.shape[2:])
    sides = default_patch(size) if patch is None else [patch] * len(size) if isinstance(patch, int) else list(patch)
    if len(sides) != len(size) or any(not 1 <= side <= whole for side, whole in zip(sides, size, strict=False)):
        raise ConfigError(f"patch {sides} for images of {size}", remedy="give a side between 1 and the image's")
    if not 0 <= overlap < 1 or batch_size < 1:
        raise ConfigError(f"overlap {overlap}, batch_size {batch_size}", remedy="use 0 to below 1, and 1 or more")
    cover, images = _cover(sides).to(images), images.detach()
    means = images.mean(tuple(range(2, images.dim())), keepdim=True)
    fallen, weight = images.new_zeros(images.shape[0], 1, *size), images.new_zeros(*size)
    with torch.no_grad():
        whole = log_odds(network(images), targets, task)
        places = _places(size, sides, overlap)
        for number, (image, mean, target) in enumerate(zip(images, means, targets, strict=True)):
            for some in _batches(places, batch_size):
                covered = image.expand(len(some), *image.shape).clone()
                for copy, place in zip(covered, some, strict=True):
                    for channel, value in zip(copy, mean.flatten(), strict=True):
                        channel[place] = channel[place].lerp(value, cover)
                scores = log_odds(network(covered), target.expand(len(some)), task)
                for score, place in zip(scores, some, strict=True):
                    fallen[number, 0][place] += cover * (whole[number] - score)
        for place in places:
            weight[place] += cover
    return fallen / weight


def _cover(sides: Sequence[int]) -> Tensor:
    """A Gaussian bell over a patch, 1 at most and nowhere 0."""
    axes = [torch.arange(side) - (side - 1) / 2 for side in sides]
    bells = [torch.exp(-0.5 * (axis / (_WIDTH * side)) ** 2) for axis, side in zip(axes, sides, strict=True)]
    cover = torch.ones(())
    for bell in bells:
        cover = cover[..., None] * bell
    return cover / cover.max()


def _places(size: Sequence[int], sides: Sequence[int], overlap: float) -> list[tuple[slice, ...]]:
    """Patches that cover the image; the last along an axis ends where the image does."""
    starts = []
    for whole, side in zip(size, sides, strict=True):
        step = max(1, round(side * (1 - overlap)))
        starts.append([*range(0, whole - side, step), whole - side])
    corners = itertools.product(*starts)
    return [tuple(slice(s, s + side) for s, side in zip(corner, sides, strict=True)) for corner in corners]


def _batches(places: list[tuple[slice, ...]], size: int) -> Iterator[list[tuple[slice, ...]]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]
