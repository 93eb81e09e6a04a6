"""Grad-CAM and Grad-CAM++ of a stage of a MedMamba, or of a named layer of another network. Imports networks.

MONAI's classes take a layer's output for (B, C, *spatial). A MedMamba's stages give (B, *spatial, C), for which they
return a map of the right shape and the wrong content. With a class for each image they also mix the images of a batch,
and they leave hooks behind. Here a batch gives what its images give one by one, and MONAI's maps for one image of a
channels-first network are reproduced by the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..networks import MedMamba
from ..networks.layers import channels_first
from .geometry import STRIDES, stretched, to_pixels
from .score import log_odds

__all__ = ["class_activation_map", "default_stage", "grad_cam", "grad_cam_plus_plus"]

_UNEVEN = 1.25  # ratio of strides along two axes from which on an output is no map of the image


def default_stage(size: Sequence[int]) -> int:
    """The deepest stage whose map still has seven cells along the shortest side of the image; else the second.

    Example:
        >>> default_stage((224, 224)), default_stage((96, 128)), default_stage((64, 64))
        (3, 1, 1)
    """
    fitting = [stage for stage, stride in enumerate(STRIDES) if min(size) // stride >= 7]
    return max(fitting, default=1)


def grad_cam(cells: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM (arXiv 1610.02391), equations 1 and 2.

    Args:
        cells: (B, C, *cells) a layer's output.
        gradient: of the class's score, in the same shape.

    Returns:
        (B, 1, *cells), 0 or more.
    """
    axes = tuple(range(2, cells.dim()))
    return F.relu((gradient.mean(axes, keepdim=True) * cells).sum(1, keepdim=True))


def grad_cam_plus_plus(cells: Tensor, gradient: Tensor) -> Tensor:
    r"""Grad-CAM++ (arXiv 1710.11063), equations 10 and 19.

    With the score :math:`e^{s}`, gradients :math:`g = \partial s / \partial A` and
    :math:`\alpha_p = g_p^2 / (2 g_p^2 + g_p^3 \sum_q A_q)`, the weight of a channel is
    :math:`\sum_p \alpha_p \mathrm{ReLU}(g_p)` up to the factor :math:`e^{s}` that all channels share. The paper's maps
    come out of a ReLU; ours are signed, so the sum is taken over their positive part, without which the denominator
    could vanish. For g > 0 a square of g cancels, elsewhere the weight is zero.

    Args:
        cells: (B, C, *cells) a layer's output.
        gradient: of the class's score, in the same shape.

    Returns:
        (B, 1, *cells), 0 or more.
    """
    axes = tuple(range(2, cells.dim()))
    rising = F.relu(gradient)
    alpha = 1 / (2 + rising * F.relu(cells).sum(axes, keepdim=True))
    return F.relu(((alpha * rising).sum(axes, keepdim=True) * cells).sum(1, keepdim=True))


def class_activation_map(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    task: str = "multiclass",
    layer: int | str | None = None,
    plus_plus: bool = False,
) -> Tensor:
    """Class activation map in the pixels of the images.

    Args:
        network: in evaluation mode.
        images: (B, C, *spatial), taking gradients.
        targets: (B,) int64.
        task: see :func:`~.score.log_odds`.
        layer: of a MedMamba the stage, 0 to 3, None for :func:`default_stage`; of another network the name of a module
            whose output is (B, C, *cells).
        plus_plus: Grad-CAM++ instead of Grad-CAM.

    Returns:
        (B, 1, *spatial), 0 or more.

    Raises:
        ConfigError: there is no such stage or layer, or its output is no map of the image.
    """
    size, make = images.shape[2:], grad_cam_plus_plus if plus_plus else grad_cam
    if isinstance(network, MedMamba):
        stage = _stage(layer, size)
        cells, gradient = _output_and_gradient(network, network.stages[stage], images, targets, task)
        return to_pixels(make(channels_first(cells), channels_first(gradient)), STRIDES[stage], size)
    cells, gradient = _output_and_gradient(network, _named(network, layer), images, targets, task)
    _check_is_map(cells, size, str(layer))
    return stretched(make(cells, gradient), size)


def _stage(layer: int | str | None, size: Sequence[int]) -> int:
    if layer is None:
        return default_stage(size)
    if not isinstance(layer, int) or not 0 <= layer < len(STRIDES):
        raise ConfigError(f"a MedMamba has no stage {layer!r}", where="layer", remedy="use 0 to 3")
    return layer


def _output_and_gradient(
    network: nn.Module, module: nn.Module, images: Tensor, targets: Tensor, task: str
) -> tuple[Tensor, Tensor]:
    kept: list[Any] = []
    handle = module.register_forward_hook(lambda module, arguments, output: kept.append(output))
    try:
        score = log_odds(network(images), targets, task).sum()
    finally:
        handle.remove()
    if not kept or not isinstance(kept[-1], Tensor):
        raise ConfigError(f"{type(module).__name__} gives no tensor", where="layer", remedy="name another layer")
    (gradient,) = torch.autograd.grad(score, kept[-1], allow_unused=True)
    if gradient is None:
        raise ConfigError("the class does not depend on this layer", where="layer", remedy="name another layer")
    return kept[-1].detach(), gradient


def _named(network: nn.Module, layer: int | str | None) -> nn.Module:
    modules = dict(network.named_modules())
    if isinstance(layer, str) and layer in modules and layer:
        return modules[layer]
    known = [name for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    raise ConfigError(
        f"a {type(network).__name__} has no layer {layer!r}",
        where="layer",
        remedy=f"name one whose output is (B, C, *spatial), such as {known[-1] if known else 'its last convolution'}",
    )


def _check_is_map(cells: Tensor, size: Sequence[int], layer: str) -> None:
    """Refuse outputs that are not channels-first: a channel axis taken for a spatial one gives away its length."""
    strides = [whole / count for whole, count in zip(size, cells.shape[2:], strict=False)]
    if cells.dim() != len(size) + 2 or max(strides) >= _UNEVEN * min(strides):
        raise ConfigError(
            f"its output {tuple(cells.shape)} is not (B, C, *cells) for images of {tuple(size)}",
            where=f"layer {layer}",
            remedy="name a layer that gives one, or use occlusion",
        )
