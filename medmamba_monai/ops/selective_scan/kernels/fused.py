"""Fused chains around the scan, for inference: they have no gradients. Imports triton, torch and the kernels."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from .depthwise import depthwise_silu
from .gate import merge_norm_gate
from .launch import MAP_OPTIONS, on
from .plan import power_of_two
from .shuffle import interleave_add

__all__ = ["convolve", "gated", "interleaved"]

_TILE = 4096  # numbers of a program at most


def _rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def gated(parts: Tensor, weight: Tensor, bias: Tensor, epsilon: float, gate: Tensor) -> Tensor:
    """Sum over directions, LayerNorm over channels, SiLU gate.

    Args:
        parts: (batch, K, L, E) contiguous.
        weight: (E,) of the norm.
        bias: (E,) of the norm.
        epsilon: of the norm.
        gate: (batch, L, E), any strides.

    Returns:
        layer_norm(sum of parts) * silu(gate), (batch, L, E) in gate's dtype.
    """
    batch, directions, length, channels = parts.shape
    gate = _rows(gate)
    out = gate.new_empty(batch, length, channels)
    block_e = power_of_two(channels)
    block_p = max(1, min(16, _TILE // block_e))
    blocks = triton.cdiv(length, block_p)
    with on(parts.device):
        merge_norm_gate[(batch * blocks,)](
            parts, weight, bias, gate, out, (gate.stride(0), gate.stride(1)), length, channels, blocks, epsilon,
            DIRECTIONS=directions, BLOCK_P=block_p, BLOCK_E=block_e, **MAP_OPTIONS,
        )  # fmt: skip
    return out


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution with 3 pixels a side and zero padding, then SiLU.

    Args:
        x: (batch, *spatial, E) of two or three spatial axes; a slice of the channels of a contiguous map will do.
        weight: (E, 1, 3, 3) or (E, 1, 3, 3, 3), as torch's convolutions keep it.
        bias: (E,).

    Returns:
        (batch, *spatial, E) contiguous, in x's dtype.
    """
    batch, channels = x.shape[0], x.shape[-1]
    deep = x.dim() == 5
    flat = _rows(x).flatten(1, -2)
    depth, height, width = x.shape[1:-1] if deep else (1, *x.shape[1:-1])
    out = x.new_empty(x.shape)
    taps = weight.reshape(channels, -1).t().contiguous()
    block_e = min(64 if channels % 64 == 0 else 32, power_of_two(channels))
    block_p = 2048 // block_e
    blocks = triton.cdiv(flat.shape[1], block_p)
    with on(x.device):
        depthwise_silu[(batch * blocks, triton.cdiv(channels, block_e))](
            flat, taps, bias, out, (flat.stride(0), flat.stride(1)), depth, height, width, channels, blocks,
            DEEP=deep, BLOCK_P=block_p, BLOCK_E=block_e, **MAP_OPTIONS,
        )  # fmt: skip
    return out


def interleaved(residual: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add ``left`` and ``right`` (.., C / 2), their channels taken in turn, to ``residual`` (.., C)."""
    residual, left, right = residual.contiguous(), left.contiguous(), right.contiguous()
    out = torch.empty_like(residual)
    with on(out.device):
        interleave_add[(triton.cdiv(left.numel(), 1024),)](
            residual, left, right, out, left.numel(), BLOCK=1024, **MAP_OPTIONS
        )
    return out
