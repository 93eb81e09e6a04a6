"""An equal network that runs faster: batch norms folded, parts packed for CPUs. Imports medmamba, layers and ops.

Each conv branch is BN, conv, BN, ReLU, conv, BN, ReLU, conv, ReLU. The second and third norm follow a convolution and
are folded into it. The first comes before one that pads with zeros, so its shift cannot move behind the padding; it
becomes one multiply-add, which also gathers the branch's half of the channels into memory of its own.

In two dimensions, patch embedding, patch merging and whole blocks then become calls of the C library, if its scan may
be used and halves of the channels are multiples of 16, and all of them together one call for a batch of a few images.
What the library does not serve (GPUs, other types, gradients, tracing, torch.func) goes on through the folded modules.
"""

from __future__ import annotations

import copy
import operator
import os
import warnings
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import ConfigError
from ..ops.selective_scan import dispatch
from ..ops.selective_scan.differentiable import inside_transformation
from ..ops.selective_scan.packed import Packed, PackedChain
from ..ops.selective_scan.packed_block import BlockWeights, PackedBlock
from ..ops.selective_scan.packed_patches import PackedEmbedding, PackedMerging
from .layers import PatchEmbedding, PatchMerging
from .medmamba import MedMamba, SSConvSSMBlock, Stage

__all__ = ["FoldedConvBranch", "JoinedParts", "PackedModule", "optimize_for_inference"]

_TOLERANCE = 1e-4  # of a packed part against its module: a wrong kernel is wrong by far more


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


def _serves(x: Tensor) -> bool:
    """Whether packed parts take such a tensor here."""
    return (
        type(x) is Tensor
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and not (x.requires_grad and torch.is_grad_enabled())
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and not inside_transformation()
    )


class PackedModule(nn.Module):
    """A module and its packed twin, which serves plain float32 tensors on the CPU, without gradients or tracing.

    Args:
        module: for all other tensors.
        packed: computes the same.
    """

    def __init__(self, module: nn.Module, packed: Packed) -> None:
        super().__init__()
        self.module = module
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        """Do what the module does."""
        if torch.jit.is_scripting():  # an else, so that TorchScript never looks at what it cannot compile
            return self.module(x)
        else:
            return self._faster(x)

    @torch.jit.unused
    def _faster(self, x: Tensor) -> Tensor:
        return self.packed(x) if _serves(x) else self.module(x)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        errors: list[str] = arguments[-1]
        errors.append("parts are packed for inference: load into the original network and optimize that again")


class JoinedParts:
    """All parts of a network up to its last map in one call, while they are those packed and no hooks watch them.

    Args:
        network: whose parts are all packed modules.
    """

    def __init__(self, network: MedMamba) -> None:
        self.modules = _modules(network)
        self.chain = PackedChain([module.packed for module in self.modules if isinstance(module, PackedModule)])

    def __call__(self, network: MedMamba, x: Tensor) -> Tensor | None:
        """The last map of a network; None where its parts have to be applied one by one."""
        modules = _modules(network)
        same = len(modules) == len(self.modules) and all(map(operator.is_, modules, self.modules))
        watched = any(module._forward_hooks or module._forward_pre_hooks for module in modules)
        if not same or watched or not _serves(x) or len(x) > self.chain.together(x):
            return None
        return self.chain(x)


def _modules(network: MedMamba) -> list[nn.Module]:
    """What is applied one after the other, and the stages around."""
    modules: list[nn.Module] = [network.patch_embed]
    stage: Any
    for stage in network.stages:
        modules += [stage, stage.merge, *stage.blocks]
    return modules


def optimize_for_inference(network: MedMamba) -> MedMamba:
    """Return an equal network for evaluation only, folded and packed; the given one is left as it is.

    Args:
        network: trained, in evaluation mode.

    Returns:
        A network whose outputs differ by rounding alone. It cannot be trained or loaded into, but scripts and exports.
        It keeps its weights twice: as modules and packed.

    Raises:
        ConfigError: when the network is in training mode, where batch norms use the batch's statistics.
    """
    if network.training:
        raise ConfigError("the network is in training mode", remedy="call network.eval() first")
    result = copy.deepcopy(network)
    for module in list(result.modules()):
        if isinstance(module, SSConvSSMBlock) and isinstance(module.conv_branch, nn.Sequential):
            module.conv_branch = FoldedConvBranch(module.conv_branch)  # type: ignore[assignment]
    result = result.eval().requires_grad_(False)
    if result.spatial_dims == 2 and _may_pack(result.config["scan_backend"]):
        result.patch_embed = _with_twin(result.patch_embed)  # type: ignore[assignment]
        stage: Any  # a module's children have no types
        for stage in result.stages:
            stage.merge = _with_twin(stage.merge)
            for i, block in enumerate(stage.blocks):
                stage.blocks[i] = _with_twin(block)
        if all(isinstance(module, PackedModule | Stage | nn.Identity) for module in _modules(result)):
            result.joined = JoinedParts(result)
    return result


def _may_pack(backend: str | None) -> bool:
    """Whether scans may run in C: the library works, and no other backend was named."""
    named = backend or os.environ.get(dispatch.ENVIRONMENT_VARIABLE)
    return named in (None, "", "cpu") and dispatch.unavailable("cpu", "cpu") is None


def _with_twin(module: nn.Module) -> nn.Module:
    """The module with its packed twin; the module alone where there is none, or where the twin computes another thing.

    Every twin has to reproduce its module on a small map of odd sides before it is used.
    """
    packed, shape = _pack(module)
    if packed is None:
        return module
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), device="cpu")
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        want = copy.deepcopy(module).to("cpu", torch.float32)(x)
        error = (packed(x) - want).abs().max() / want.abs().max()
    if not error <= _TOLERANCE:
        warnings.warn(
            f"optimize_for_inference: the C kernel of {type(module).__name__} differs from PyTorch by {error:.1e} here "
            "and is left out, which costs speed. `python -m medmamba_monai doctor` shows the machine",
            RuntimeWarning,
            stacklevel=4,
        )
        return module
    return PackedModule(module, packed)


def _pack(module: nn.Module) -> tuple[Packed | None, tuple[int, ...]]:
    """A module's packed twin, None where there can be none, and the shape of a small input."""
    if isinstance(module, PatchEmbedding):
        conv, norm = module.proj, module.norm
        if PackedEmbedding.unavailable(conv.weight[0].numel(), len(conv.weight)) is None:
            arguments = (conv.weight, cast(Tensor, conv.bias), norm.weight, norm.bias, norm.eps, module.pad)
            return PackedEmbedding(*arguments), (1, conv.weight.shape[1], 13, 10)
    elif isinstance(module, PatchMerging):
        norm, weight = module.norm, module.reduction.weight
        if PackedMerging.unavailable(weight.shape[1], len(weight)) is None:
            return PackedMerging(weight, norm.weight, norm.bias, norm.eps, module.pad), (1, 5, 6, weight.shape[1] // 4)
    elif isinstance(module, SSConvSSMBlock):
        half = module.norm.weight.numel()
        if PackedBlock.unavailable(half) is None:
            return PackedBlock(_weights(module), module.mixer.scan), (1, 5, 7, 2 * half)
    return None, ()


def _weights(block: SSConvSSMBlock) -> BlockWeights:
    mixer, conv, branch = block.mixer, block.mixer.conv, cast(Any, block.conv_branch)  # a FoldedConvBranch
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
        depthwise_bias=cast(Tensor, conv.bias),
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
