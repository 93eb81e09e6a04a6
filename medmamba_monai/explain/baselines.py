"""Maps that know nothing of the network: what an explanation has to beat. Imports geometry and torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .geometry import to_pixels

__all__ = ["centre_maps", "contrast_maps", "random_maps"]


def random_maps(images: Tensor, seed: int, cell: int = 8) -> Tensor:
    """Noise as smooth as explanations are.

    Args:
        images: (B, C, *spatial).
        seed: of the noise.
        cell: pixels between independent values.

    Returns:
        (B, 1, *spatial).
    """
    counts = [-(-side // cell) for side in images.shape[2:]]
    noise = torch.rand(images.shape[0], 1, *counts, generator=torch.Generator().manual_seed(seed))
    return to_pixels(noise, cell, images.shape[2:]).to(images.device)


def centre_maps(images: Tensor) -> Tensor:
    """Nearness to the image's centre (B, 1, *spatial): what is looked for is often in the middle of medical images."""
    axes = [torch.linspace(-1, 1, side, device=images.device) for side in images.shape[2:]]
    squares = [grid**2 for grid in torch.meshgrid(*axes, indexing="ij")]
    return (-torch.stack(squares).sum(0)).expand(images.shape[0], 1, *images.shape[2:])


def contrast_maps(images: Tensor) -> Tensor:
    """Distance of each pixel from the image's mean (B, 1, *spatial): how much covering it changes the input."""
    axes = tuple(range(2, images.dim()))
    return (images - images.mean(axes, keepdim=True)).abs().mean(1, keepdim=True)
