"""``explain``: maps for a batch of images by any of the methods. Imports the modules of this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..errors import ConfigError
from .cam import class_activation_map
from .geometry import smoothed
from .occlusion import occlusion
from .passes import logits_of, require_medmamba, studied
from .routes import pixel_contributions, route_contributions
from .score import TASKS, as_targets, probabilities

__all__ = ["METHODS", "Explanation", "Method", "explain"]


class Method(NamedTuple):
    """How a method is called in titles, the unit of its maps, whether they have negative parts, and its options.

    Attributes:
        per_pixel: whether values are shares that sum over the image, so that a finer pixel holds less.
    """

    title: str
    unit: str
    signed: bool
    options: tuple[str, ...]
    per_pixel: bool = False


METHODS = {
    "gradcam": Method("Grad-CAM", "weighted activation", False, ("layer",)),
    "gradcam++": Method("Grad-CAM++", "weighted activation", False, ("layer",)),
    "scan": Method("pixel contributions", "log-odds per pixel", True, ("routes",), per_pixel=True),
    "occlusion": Method("occlusion", "fall of the log-odds", True, ("patch", "overlap", "batch_size")),
}
"""The methods by the names that :func:`explain` takes."""


class Explanation(NamedTuple):
    """Maps of a batch of images, in the pixels of the images as the network was given them.

    Attributes:
        method: a name of :data:`METHODS`.
        maps: (B, 1, *spatial); high where the image speaks for the class, negative (scan, occlusion) where it speaks
            against it.
        targets: (B,) the classes explained.
        probabilities: (B, classes) of the network for the images.
        routes: where asked for (scan), maps (B, 1, *spatial) by route: through the states of each direction, through
            the skip connections, past the scans; they sum to ``maps``.
    """

    method: str
    maps: Tensor
    targets: Tensor
    probabilities: Tensor
    routes: dict[str, Tensor]


def explain(
    network: nn.Module,
    images: Tensor,
    method: str = "gradcam",
    targets: Tensor | Sequence[int] | int | None = None,
    task: str = "multiclass",
    **options: Any,
) -> Explanation:
    """Say which pixels speak for a class.

    The network is left as it was: mode, gradients, hooks. A batch gives what its images give one by one.

    Args:
        network: a MedMamba; for occlusion any classifier (B, C, *spatial) -> (B, classes), for Grad-CAM and
            Grad-CAM++ one that names its ``layer``.
        images: (B, C, *spatial), preprocessed, on the device of the network.
        method: a name of :data:`METHODS`.
        targets: a class for all images, or one for each; None explains the class predicted.
        task: "multiclass", or "multilabel" where every class has a sigmoid of its own.
        options: of the method. Grad-CAM and Grad-CAM++: ``layer``, stage 0 to 3 of a MedMamba, None chooses by the
            image's size; or the name of a layer of another network. Occlusion: ``patch``, ``overlap``, ``batch_size``.
            Scan: ``routes``, True to tell the routes apart, which takes seven passes instead of one.

    Raises:
        ConfigError: a method, option or class that does not exist, or a network that cannot be explained.
        DataError: the network's output is not finite.

    Example:
        >>> import torch
        >>> from medmamba_monai import MedMamba
        >>> network = MedMamba(num_classes=3, depths=(1, 1, 1, 1), dims=(8, 16, 32, 64))
        >>> explain(network, torch.rand(2, 3, 64, 48), "gradcam", targets=1).maps.shape
        torch.Size([2, 1, 64, 48])
    """
    _check(method, task, options)
    with studied(network, images) as leaf:
        logits = logits_of(network, leaf)
        chosen = as_targets(targets, logits)
        routes: dict[str, Tensor] = {}
        if method == "scan":
            medmamba = require_medmamba(network, METHODS[method].title)
            if options.get("routes", False):
                parts = route_contributions(medmamba, leaf, chosen, task)
                routes = {name: smoothed(part) for name, part in parts.items()}
            maps = smoothed(pixel_contributions(medmamba, leaf, chosen, task))
        else:
            maps = _MAKERS[method](network, leaf, chosen, task, **options)
    return Explanation(method, maps.detach(), chosen, probabilities(logits, task), routes)


def _check(method: str, task: str, options: dict[str, Any]) -> None:
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}", remedy=f"use one of {', '.join(METHODS)}")
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}", remedy=f"use one of {', '.join(TASKS)}")
    for name in options:
        if name not in METHODS[method].options:
            known = ", ".join(METHODS[method].options) or "none"
            raise ConfigError(f"{method} has no option {name!r}", remedy=f"its options: {known}")


_MAKERS: dict[str, Callable[..., Tensor]] = {
    "gradcam": partial(class_activation_map, plus_plus=False),
    "gradcam++": partial(class_activation_map, plus_plus=True),
    "occlusion": occlusion,
}
