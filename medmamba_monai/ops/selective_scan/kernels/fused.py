"""Launches the fused chains around the scan, forward and backward. Imports triton, torch and the kernels."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from .depthwise import depthwise_backward, depthwise_silu, depthwise_weights
from .gate import merge_norm_gate, norm_gate_backward
from .launch import MAP_OPTIONS, on
from .plan import power_of_two
from .shuffle import deinterleave, interleave_add

__all__ = ["convolve", "convolve_backward", "gated", "gated_backward", "interleaved", "interleaved_backward"]

_TILE = 4096  # numbers of a program at most; a reduction over channels needs all of them in one
_BACKWARD_TILE = 1024  # backward holds several tiles at once
_CONVOLVED_TILE, _DEEP_TILE = 2048, 1024  # 27 taps need more registers for addresses than 9
_PARTS = 256  # programs over the pixels whose parts of a parameter's gradient are summed afterwards
_FLAT = 1024  # numbers of a program that takes them as they come


def _rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _groups(batch: int, blocks: int) -> tuple[int, int]:
    """Blocks of pixels are taken ``repeats`` at a time: how many groups of them an image has, and ``repeats``."""
    repeats = min(blocks, max(1, batch * blocks // _PARTS))
    return triton.cdiv(blocks, repeats), repeats


def gated(
    parts: Tensor, weight: Tensor, bias: Tensor, epsilon: float, gate: Tensor, save: bool
) -> tuple[Tensor, Tensor]:
    """Sum over directions, LayerNorm over channels, SiLU gate.

    Args:
        parts: (batch, K, L, E) contiguous.
        weight: (E,) of the norm.
        bias: (E,) of the norm.
        epsilon: of the norm.
        gate: (batch, L, E), any strides.
        save: whether to return the sum, which backward needs.

    Returns:
        layer_norm(sum of parts) * silu(gate), (batch, L, E) in gate's dtype, and the sum in that of parts (else empty).
    """
    batch, directions, length, channels = parts.shape
    gate = _rows(gate)
    out = gate.new_empty(batch, length, channels)
    total = parts.new_empty((batch, length, channels) if save else (0,))
    block_e = power_of_two(channels)
    block_p = max(1, min(16, _TILE // block_e))
    blocks = triton.cdiv(length, block_p)
    with on(parts.device):
        merge_norm_gate[(batch * blocks,)](
            parts, weight, bias, gate, out, total if save else None, (gate.stride(0), gate.stride(1)), length,
            channels, blocks, epsilon, DIRECTIONS=directions, BLOCK_P=block_p, BLOCK_E=block_e, SAVE=save,
            **MAP_OPTIONS,
        )  # fmt: skip
    return out, total


def gated_backward(
    grad: Tensor, total: Tensor, weight: Tensor, bias: Tensor, epsilon: float, gate: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the sum, the norm's weight and bias (float32), and the gate."""
    batch, length, channels = total.shape
    grad, gate = grad.contiguous(), _rows(gate)
    d_total, d_gate = torch.empty_like(total), gate.new_empty(gate.shape)
    block_e = power_of_two(channels)
    block_p = max(1, min(16, _BACKWARD_TILE // block_e))
    groups, repeats = _groups(batch, triton.cdiv(length, block_p))
    d_weight = total.new_empty(batch * groups, channels, dtype=torch.float32)
    d_bias = torch.empty_like(d_weight)
    with on(grad.device):
        norm_gate_backward[(batch * groups,)](
            grad, total, weight, bias, gate, d_total, d_gate, d_weight, d_bias, (gate.stride(0), gate.stride(1)),
            length, channels, groups, repeats, epsilon, BLOCK_P=block_p, BLOCK_E=block_e, **MAP_OPTIONS,
        )  # fmt: skip
    return d_total, d_weight.sum(0), d_bias.sum(0), d_gate


def _map(x: Tensor) -> tuple[Tensor, tuple[int, int, int], dict[str, int]]:
    """A map with its pixels on one axis, its three sides, and the sizes of the programs for it."""
    channels, deep = x.shape[-1], x.dim() == 5
    depth, height, width = x.shape[1:-1] if deep else (1, *x.shape[1:-1])
    block_e = min(64 if channels % 64 == 0 else 32, power_of_two(channels))
    return (
        _rows(x).flatten(1, -2),
        (depth, height, width),
        {"BLOCK_P": (_DEEP_TILE if deep else _CONVOLVED_TILE) // block_e, "BLOCK_E": block_e},
    )


def _activate(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor | None) -> Tensor:
    batch, channels = x.shape[0], x.shape[-1]
    flat, sides, tile = _map(x)
    out = x.new_empty(x.shape)
    blocks = triton.cdiv(flat.shape[1], tile["BLOCK_P"])
    with on(x.device):
        depthwise_silu[(batch * blocks, triton.cdiv(channels, tile["BLOCK_E"]))](
            flat, weight.contiguous(), bias, grad, out, (flat.stride(0), flat.stride(1)), *sides, channels, blocks,
            DEEP=x.dim() == 5, BACKWARD=grad is not None, **tile, **MAP_OPTIONS,
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
    return _activate(x, weight, bias, None)


def convolve_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; the convolution is computed again, not kept."""
    batch, channels = x.shape[0], x.shape[-1]
    inner = _activate(x, weight, bias, grad.contiguous())
    flat, sides, tile = _map(x)
    deep, taps = x.dim() == 5, weight[0].numel()
    d_x = x.new_empty(x.shape)
    blocks, over_channels = triton.cdiv(flat.shape[1], tile["BLOCK_P"]), triton.cdiv(channels, tile["BLOCK_E"])
    groups, repeats = _groups(batch, blocks)
    d_weight = x.new_empty(batch * groups, taps, channels, dtype=torch.float32)
    d_bias = x.new_empty(batch * groups, channels, dtype=torch.float32)
    with on(x.device):
        depthwise_backward[(batch * blocks, over_channels)](
            inner, weight.contiguous(), d_x, *sides, channels, blocks, DEEP=deep, **tile, **MAP_OPTIONS
        )
        depthwise_weights[(batch * groups, over_channels, taps // 3)](
            inner, flat, d_weight, d_bias, (flat.stride(0), flat.stride(1)), *sides, channels, groups, repeats,
            DEEP=deep, **tile, **MAP_OPTIONS,
        )  # fmt: skip
    return d_x, d_weight.sum(0).t().reshape(weight.shape).to(weight.dtype), d_bias.sum(0).to(bias.dtype)


def interleaved(residual: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add ``left`` and ``right`` (.., C / 2), channels in turn, to ``residual`` (.., C), as types promote."""
    dtype = torch.promote_types(residual.dtype, torch.promote_types(left.dtype, right.dtype))
    residual, left, right = residual.contiguous(), left.contiguous(), right.contiguous()
    out = residual.new_empty(residual.shape, dtype=dtype)
    with on(out.device):
        interleave_add[(triton.cdiv(left.numel(), _FLAT),)](
            residual, left, right, out, left.numel(), BLOCK=_FLAT, **MAP_OPTIONS
        )
    return out


def interleaved_backward(grad: Tensor, left: torch.dtype, right: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gradients of the two halves, in their dtypes; the residual's is ``grad``."""
    shape = (*grad.shape[:-1], grad.shape[-1] // 2)
    halves = grad.new_empty(shape, dtype=left), grad.new_empty(shape, dtype=right)
    with on(grad.device):
        deinterleave[(triton.cdiv(halves[0].numel(), _FLAT),)](
            grad.contiguous(), *halves, halves[0].numel(), BLOCK=_FLAT, **MAP_OPTIONS
        )
    return halves
