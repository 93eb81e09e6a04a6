"""An equal network that runs faster: batch norms folded, blocks packed for CPUs. Imports medmamba, ops and torch.

Where the C library can, a two-dimensional block in float32 becomes one call of it; see ``ops/selective_scan/packed_block``.
Everything else, training apart, goes on working through the folded block. Each conv branch is BN, conv, BN, ReLU, conv, BN, ReLU, conv, ReLU. The second and third norm follow a convolution and
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
from ..ops.orders import index_table
from ..ops.selective_scan.packed_block import BlockWeights, PackedBlock
from .medmamba import MedMamba, SSConvSSMBlock

__all__ = ["FastBlock", "FoldedConvBranch", "optimize_for_inference"]


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


class FastBlock(nn.Module):
    """A block for evaluation: one call of the C library where that is possible, else the folded block.

    The call serves plain tensors in float32 on the CPU, without gradients, autocast or tracing.

    Args:
        block: with its conv branch folded.
        packed: the same, packed.
    """

    def __init__(self, block: SSConvSSMBlock, packed: PackedBlock) -> None:
        super().__init__()
        self.block = block
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, dim) to the same shape."""
        if not torch.jit.is_scripting() and self._serves(x):
            return self._call(x)
        return self.block(x)

    @torch.jit.unused
    def _serves(self, x: Tensor) -> bool:
        return (
            type(x) is Tensor
            and x.dtype == torch.float32
            and x.device.type == "cpu"
            and not (x.requires_grad and torch.is_grad_enabled())
            and not torch.is_autocast_enabled("cpu")
            and not torch.jit.is_tracing()
            and not torch.compiler.is_compiling()
        )

    @torch.jit.unused
    def _call(self, x: Tensor) -> Tensor:
        return self.packed(x, index_table(self.block.mixer.scan, tuple(x.shape[1:-1])))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        errors: list[str] = arguments[-1]
        errors.append("blocks are packed for inference: load into the original network and optimize that again")


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


def _weights(block: SSConvSSMBlock, branch: FoldedConvBranch) -> BlockWeights:
    mixer, conv = block.mixer, block.mixer.conv
    return BlockWeights(
        scale=branch.scale.flatten(),
        shift=branch.shift.flatten(),
        conv1=branch.conv1.weight,
        conv1_bias=branch.conv1.bias,
        conv2=branch.conv2.weight,
        conv2_bias=branch.conv2.bias,
        conv3=branch.conv3.weight.flatten(1),
        conv3_bias=branch.conv3.bias,
        norm=block.norm.weight,
        norm_bias=block.norm.bias,
        in_proj=mixer.in_proj.weight,
        depthwise=conv.weight.flatten(0, 1),
        depthwise_bias=conv.bias,
        x_proj=mixer.x_proj,
        A=-torch.exp(mixer.A_log.float()),
        D=mixer.D,
        dt_weight=mixer.dt_weight,
        dt_bias=mixer.dt_bias,
        out_norm=mixer.out_norm.weight,
        out_norm_bias=mixer.out_norm.bias,
        out_proj=mixer.out_proj.weight,
        epsilons=(block.norm.eps, mixer.out_norm.eps),
    )
