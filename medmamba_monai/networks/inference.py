"""An equal network that runs faster: batch norms folded into their neighbours. Imports layers and torch.

Each conv branch is BN, conv, BN, ReLU, conv, BN, ReLU, conv, ReLU. The second and third norm follow a convolution and
are folded into it. The first comes before one that pads with zeros, so its shift cannot move behind the padding; it
becomes one multiply-add, which also gathers the branch's half of the channels into memory of its own.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import ConfigError
from .medmamba import MedMamba, SSConvSSMBlock

__all__ = ["FoldedConvBranch", "optimize_for_inference"]


class FoldedConvBranch(nn.Module):
    """The conv branch of a block in evaluation mode, with its batch norms folded.

    Args:
        branch: the branch to fold; left as it is.
    """

    def __init__(self, branch: nn.Sequential) -> None:
        super().__init__()
        parts: dict[str, Any] = dict(branch.named_children())
        norm, axes = parts["norm1"], parts["conv1"].weight.dim()
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shape = (1, -1) + (1,) * (axes - 2)
        self.register_buffer("scale", scale.detach().view(shape).clone())
        self.register_buffer("shift", (norm.bias - norm.running_mean * scale).detach().view(shape).clone())
        self.conv1: nn.Module = fuse_conv_bn_eval(parts["conv1"], parts["norm2"])
        self.conv2: nn.Module = fuse_conv_bn_eval(parts["conv2"], parts["norm3"])
        self.conv3: nn.Module = copy.deepcopy(parts["conv3"])
        self.to(memory_format=torch.channels_last if axes == 4 else torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *spatial) to the same shape."""
        x = torch.addcmul(self.shift, x, self.scale)  # type: ignore[arg-type]
        x = F.relu_(self.conv1(x))
        x = F.relu_(self.conv2(x))
        return F.relu_(self.conv3(x))


def optimize_for_inference(network: MedMamba) -> MedMamba:
    """Return an equal network for evaluation only, with batch norms folded; the given one is left as it is.

    Args:
        network: trained, in evaluation mode.

    Returns:
        A network whose outputs differ by rounding alone. It cannot be trained or loaded into, but scripts and exports.

    Raises:
        ConfigError: when the network is in training mode, where batch norms use the batch's statistics.
    """
    if network.training:
        raise ConfigError("the network is in training mode", remedy="call network.eval() first")
    result = copy.deepcopy(network)
    for module in list(result.modules()):
        if isinstance(module, SSConvSSMBlock) and isinstance(module.conv_branch, nn.Sequential):
            module.conv_branch = FoldedConvBranch(module.conv_branch)  # type: ignore[assignment]
    return result.eval().requires_grad_(False)
