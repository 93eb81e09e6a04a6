"""MedMamba (arXiv 2403.03849), top to bottom: the network, a stage, the SS-Conv-SSM block, the directional-scan mixer.

Imports layers and ops. Maps are channels-last inside, (B, *spatial, C); images and features are channels-first.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError
from ..ops.orders import direction_count, index_table, make_table, strides
from ..ops.selective_scan import chains, directional_scan
from ..ops.selective_scan.contract import DirectionalInputs
from ..ops.selective_scan.exportable import directional_scan as exportable_scan
from .layers import (
    CONVOLUTION,
    DropPath,
    PatchEmbedding,
    PatchMerging,
    channels_first,
    channels_last,
    interleave,
)

__all__ = ["MedMamba", "SSConvSSMBlock", "ScanMixer", "Stage"]

_SMALLEST_SIDE = 32
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class MedMamba(nn.Module):
    """MedMamba for classification of 2-D images or 3-D volumes.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        num_classes: outputs of the head; 0 leaves the head out, so that ``forward`` gives pooled features.
        depths: blocks in each of the four stages.
        dims: channels in each stage, each twice the one before.
        d_state: states a channel (N).
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        scan: pixel orders, one of :data:`medmamba_monai.ops.SCANS`.
        odd_size: "pad" appends zeros where a side does not divide; "crop" drops the rest, as the released weights
            were trained.
        gradient_checkpointing: recompute the blocks in backward to save memory.
        scan_backend: a scan backend by name; None takes the fastest that can run.

    Raises:
        ConfigError: for arguments that do not fit together.

    Example:
        >>> network = MedMamba(num_classes=5, depths=(1, 1, 1, 1), dims=(16, 32, 64, 128)).eval()
        >>> network(torch.zeros(2, 3, 64, 48)).shape
        torch.Size([2, 5])
        >>> [tuple(f.shape[1:]) for f in network.forward_features(torch.zeros(2, 3, 64, 48))]
        [(16, 16, 12), (32, 8, 6), (64, 4, 3), (128, 2, 2)]
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (2, 2, 4, 2),
        dims: Sequence[int] = (96, 192, 384, 768),
        d_state: int = 16,
        drop_path_rate: float = 0.1,
        scan: str = "cross",
        odd_size: str = "pad",
        gradient_checkpointing: bool = False,
        scan_backend: str | None = None,
    ) -> None:
        super().__init__()
        self.config = _checked(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            num_classes=num_classes,
            depths=list(depths),
            dims=list(dims),
            d_state=d_state,
            drop_path_rate=drop_path_rate,
            scan=scan,
            odd_size=odd_size,
            gradient_checkpointing=gradient_checkpointing,
            scan_backend=scan_backend,
        )
        self.spatial_dims, self.in_channels, self.num_classes = spatial_dims, in_channels, num_classes
        self.pad = odd_size == "pad"
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        self.patch_embed = PatchEmbedding(spatial_dims, in_channels, dims[0], self.pad)
        self.stages = nn.ModuleList()
        for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
            merge = PatchMerging(spatial_dims, dims[i - 1], self.pad) if i > 0 else nn.Identity()
            blocks = [
                SSConvSSMBlock(spatial_dims, dim, d_state, rates.pop(0), scan, scan_backend) for _ in range(depth)
            ]
            self.stages.append(Stage(merge, blocks, gradient_checkpointing))
        # all parts at once where that is possible, else None; see inference.py
        self.joined: Callable[[MedMamba, Tensor], Tensor | None] | None = None
        self.head: nn.Module = nn.Linear(dims[-1], num_classes) if num_classes > 0 else nn.Identity()
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, *spatial) to logits (B, num_classes), or pooled features without a head."""
        return self.head(self._last_map(x).flatten(1, -2).mean(1))

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Map images to the four stages' maps (B, dims[i], *spatial), at strides 4, 8, 16, 32."""
        if not torch.jit.is_scripting():
            self._check_input(x)
        x = self.patch_embed(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(channels_first(x))
        return features

    def reset_head(self, num_classes: int) -> None:
        """Replace the head by a new one, freshly initialised; 0 leaves it out."""
        if num_classes < 0:
            raise ConfigError(f"num_classes is {num_classes}", remedy="use 0 or more")
        dim = self.config["dims"][-1]
        reference = next(self.patch_embed.parameters())
        self.head = nn.Linear(dim, num_classes) if num_classes > 0 else nn.Identity()
        self.head.apply(_initialise).to(reference.device, reference.dtype)
        self.num_classes = self.config["num_classes"] = num_classes

    @torch.jit.unused
    def optimize_for_inference(self) -> MedMamba:
        """Return an equal, faster network for evaluation only; see :mod:`medmamba_monai.networks.inference`."""
        from .inference import optimize_for_inference

        return optimize_for_inference(self)

    def _last_map(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            self._check_input(x)
            joined = None if self.joined is None else self.joined(self, x)
            if joined is not None:
                return joined
        x = self.patch_embed(x)
        for stage in self.stages:
            x = stage(x)
        return x

    @torch.jit.unused
    def _check_input(self, x: Tensor) -> None:
        axes = ", ".join(["B", str(self.in_channels)] + ["D", "H", "W"][3 - self.spatial_dims :])
        where = f"MedMamba input of shape {tuple(x.shape)}"
        if x.dim() != self.spatial_dims + 2:
            raise ConfigError(f"{x.dim()} axes, expected ({axes})", where=where)
        if x.shape[1] != self.in_channels:
            raise ConfigError(
                f"{x.shape[1]} channels, expected {self.in_channels}",
                where=where,
                remedy="convert the images, or build the network with in_channels to match",
            )
        if not torch.compiler.is_compiling() and x.shape[0] == 0:
            raise ConfigError("the batch is empty", where=where)
        spatial = [int(size) for size in x.shape[2:]]
        if min(spatial) < _SMALLEST_SIDE:
            raise ConfigError(f"a side is under {_SMALLEST_SIDE}", where=where, remedy="resize the images")
        if self.training and not torch.compiler.is_compiling():
            smallest = math.prod(-(-s // 32) if self.pad else s // 4 // 2 // 2 // 2 for s in spatial)
            if x.shape[0] * smallest == 1:
                raise ConfigError(
                    "batch normalisation cannot train on a single value a channel",
                    where=where,
                    remedy="use a batch of two or more, larger images, or network.eval()",
                )


class Stage(nn.Module):
    """Patch merging (except in the first stage), then blocks."""

    def __init__(self, merge: nn.Module, blocks: Sequence[nn.Module], gradient_checkpointing: bool) -> None:
        super().__init__()
        self.merge = merge
        self.blocks = nn.ModuleList(blocks)
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, *spatial, C) to (B, *spatial', C')."""
        x = self.merge(x)
        for block in self.blocks:
            if torch.jit.is_scripting():
                x = block(x)
            elif self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x = _checkpointed(block, x)
            else:
                x = block(x)
        return x


class SSConvSSMBlock(nn.Module):
    """Half of the channels pass through convolutions, half through the directional scan; then they are interleaved.

    Args:
        spatial_dims: 2 or 3.
        dim: channels, even.
        d_state: states a channel of the scan.
        drop_path: rate of dropping the scan's branch.
        scan: pixel orders.
        scan_backend: a scan backend by name, or None.
    """

    def __init__(
        self, spatial_dims: int, dim: int, d_state: int, drop_path: float, scan: str, scan_backend: str | None
    ) -> None:
        super().__init__()
        half = dim // 2
        conv, norm = CONVOLUTION[spatial_dims], _BATCH_NORM[spatial_dims]
        self.conv_branch = nn.Sequential(
            OrderedDict(
                norm1=norm(half),
                conv1=conv(half, half, kernel_size=3, padding=1),
                norm2=norm(half),
                act1=nn.ReLU(),
                conv2=conv(half, half, kernel_size=3, padding=1),
                norm3=norm(half),
                act2=nn.ReLU(),
                conv3=conv(half, half, kernel_size=1),
                act3=nn.ReLU(),
            )
        )
        self.norm = nn.LayerNorm(half)
        self.mixer = ScanMixer(spatial_dims, half, d_state, scan, scan_backend)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, *spatial, dim) to the same shape."""
        left, right = x.chunk(2, dim=-1)
        left = channels_last(self.conv_branch(channels_first(left)))
        right = self.drop_path(self.mixer(self.norm(right)))
        if not torch.jit.is_scripting():  # noqa: SIM102  (TorchScript leaves out what is within)
            if chains.fuses(x, self.mixer.scan_backend, (left, right)):
                return chains.interleave_add(x, left, right)
        return x + interleave(left, right)


class ScanMixer(nn.Module):
    """Mix pixels by a gated selective scan in several directions (SS2D of VMamba, arXiv 2401.10166, in 2-D or 3-D).

    Args:
        spatial_dims: 2 or 3.
        dim: channels that come in and go out; 2 * dim are scanned.
        d_state: states a channel (N).
        scan: pixel orders, one of :data:`medmamba_monai.ops.SCANS`.
        scan_backend: a scan backend by name, or None.
    """

    def __init__(self, spatial_dims: int, dim: int, d_state: int, scan: str, scan_backend: str | None) -> None:
        super().__init__()
        directions = direction_count(scan, spatial_dims)
        inner, rank = 2 * dim, math.ceil(dim / 16)
        self.scan, self.scan_backend = scan, scan_backend
        self.d_state, self.dt_rank, self.directions = d_state, rank, directions
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = CONVOLUTION[spatial_dims](inner, inner, kernel_size=3, padding=1, groups=inner)
        self.x_proj = nn.Parameter(torch.empty(directions, rank + 2 * d_state, inner))
        self.dt_weight = nn.Parameter(torch.empty(directions, inner, rank))
        self.dt_bias = nn.Parameter(torch.empty(directions, inner))
        self.A_log = nn.Parameter(torch.empty(directions, inner, d_state))
        self.D = nn.Parameter(torch.empty(directions, inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, *spatial, dim) to the same shape."""
        if not torch.jit.is_scripting():  # noqa: SIM102  (TorchScript leaves out what is within)
            if chains.fuses(x, self.scan_backend, self.parameters()):
                return self._fused(x)
        hidden, gate = self.in_proj(x).chunk(2, dim=-1)
        hidden = channels_last(F.silu(self.conv(channels_first(hidden))))
        spatial = hidden.shape[1:-1]
        u = hidden.flatten(1, -2)  # (B, L, E)
        projected = F.linear(u, self.x_proj.flatten(0, 1)).unflatten(2, [self.directions, -1])
        dt, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        A = -torch.exp(self.A_log.float())
        if torch.jit.is_scripting():
            order = make_table(self.scan, spatial, u.device)  # type: ignore[arg-type]
            y = exportable_scan(u, dt, A, B, C, self.D, self.dt_weight, self.dt_bias, order)
        else:
            y = self._scan(u, dt, A, B, C, spatial)  # type: ignore[arg-type]
        y = self.out_norm(y).reshape(hidden.shape) * F.silu(gate)
        return self.out_proj(y)

    @torch.jit.unused
    def _fused(self, x: Tensor) -> Tensor:
        """What ``forward`` does, with the chains that the Triton backend runs as one kernel."""
        spatial = tuple(x.shape[1:-1])
        hidden, gate = self.in_proj(x).chunk(2, dim=-1)
        u = chains.depthwise_silu(hidden, self.conv).flatten(1, -2)
        projected = F.linear(u, self.x_proj.flatten(0, 1)).unflatten(2, [self.directions, -1])
        dt, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        A = -torch.exp(self.A_log.float())
        order = index_table(self.scan, spatial, u.device)
        inputs = DirectionalInputs(u, dt, A, B, C, self.D, self.dt_weight, self.dt_bias, order)
        y = chains.scan_norm_gate(inputs, strides(self.scan, spatial), self.out_norm, gate.flatten(1, -2))
        return self.out_proj(y.unflatten(1, spatial))

    @torch.jit.unused
    def _scan(self, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, spatial: list[int]) -> Tensor:
        order = index_table(self.scan, tuple(spatial), u.device)
        if self.scan_backend is None and _is_exporting():
            return exportable_scan(u, dt, A, B, C, self.D, self.dt_weight, self.dt_bias, order)
        return directional_scan(u, dt, A, B, C, self.D, self.dt_weight, self.dt_bias, order, backend=self.scan_backend)


def _is_exporting() -> bool:
    """Whether the graph shall run where this package is not installed; a backend named by the user is kept."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()


class _KeptStatistics:
    """Recomputing a block must not count its batch twice in the running statistics; a graph may be walked twice."""

    def __init__(self, block: nn.Module) -> None:
        self.norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    return checkpoint(
        block, x, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), _KeptStatistics(block))
    )


def _checked(**config: Any) -> dict[str, Any]:
    """Return the arguments of MedMamba as a dictionary, or say which does not fit."""
    depths, dims = config["depths"], config["dims"]
    direction_count(config["scan"], config["spatial_dims"])
    if len(depths) != 4 or len(dims) != 4 or min(depths) < 1:
        raise ConfigError(f"depths={depths}, dims={dims}", remedy="give four stages, each with at least one block")
    if dims[0] < 2 or dims[0] % 2 or any(b != 2 * a for a, b in itertools.pairwise(dims)):
        raise ConfigError(f"dims={dims}", remedy="start with an even number and double it from stage to stage")
    if config["odd_size"] not in ("pad", "crop"):
        raise ConfigError(f"odd_size={config['odd_size']!r}", remedy="use 'pad' or 'crop'")
    if config["in_channels"] < 1 or config["num_classes"] < 0 or config["d_state"] < 1:
        raise ConfigError(
            "in_channels and d_state must be positive, num_classes 0 or more: "
            f"{config['in_channels']}, {config['d_state']}, {config['num_classes']}"
        )
    if not 0.0 <= config["drop_path_rate"] < 1.0:
        raise ConfigError(f"drop_path_rate={config['drop_path_rate']}", remedy="use 0 <= rate < 1")
    return config


def _initialise(module: nn.Module) -> None:
    """Initialise as the released network does; the scan as Mamba (arXiv 2312.00752, section 3.6 and its code)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, ScanMixer):
        _initialise_scan(module)


def _initialise_scan(mixer: ScanMixer, fastest: float = 1e-1, slowest: float = 1e-3) -> None:
    """Step sizes log-uniform between ``slowest`` and ``fastest``, decay rates 1..N, skip 1."""
    for k in range(mixer.directions):
        nn.init.kaiming_uniform_(mixer.x_proj[k], a=math.sqrt(5))
    bound = mixer.dt_rank**-0.5
    nn.init.uniform_(mixer.dt_weight, -bound, bound)
    with torch.no_grad():
        steps = torch.empty_like(mixer.dt_bias).uniform_(math.log(slowest), math.log(fastest)).exp_().clamp_(min=1e-4)
        mixer.dt_bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # inverse of softplus
        states = torch.arange(1, mixer.d_state + 1, dtype=mixer.A_log.dtype)
        mixer.A_log.copy_(states.log().expand_as(mixer.A_log))
        mixer.D.fill_(1.0)
