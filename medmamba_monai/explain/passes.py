"""Looking at a network without leaving a trace in it. Imports networks and errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..networks import MedMamba

__all__ = ["logits_of", "require_medmamba", "studied"]


@contextlib.contextmanager
def studied(network: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """Evaluation mode, gradients to the images and not to the weights; afterwards everything is as before.

    Args:
        network: any network.
        images: (B, C, *spatial).

    Yields:
        The images as a leaf that takes gradients, in the type of the weights, with autograd on and autocast off, also
        inside ``torch.inference_mode()``.
    """
    modes = [(module, module.training) for module in network.modules()]
    weights = [(weight, weight.requires_grad) for weight in network.parameters()]
    dtype = weights[0][0].dtype if weights else torch.float32
    try:
        network.eval()
        for weight, _ in weights:
            weight.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
            yield images.detach().as_subclass(Tensor).to(dtype).clone().requires_grad_()
    finally:
        for module, training in modes:
            module.training = training
        for weight, requires_grad in weights:
            weight.requires_grad_(requires_grad)


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Logits (B, classes) of images, without gradients.

    Raises:
        ConfigError: the network is no classifier, or there are no images.
    """
    if images.shape[0] == 0:
        raise ConfigError("there are no images", where="images")
    with torch.no_grad():
        logits = network(images)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(f"the network returns {got}, not (B, classes)", remedy="explain a classifier")
    return logits


def require_medmamba(network: nn.Module, method: str) -> MedMamba:
    """The network as a MedMamba.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(network, MedMamba):
        raise ConfigError(
            f"{method} looks into a MedMamba, this is a {type(network).__name__}",
            remedy="use occlusion, which works for every network, or Grad-CAM with the name of a layer",
        )
    return network
