"""What the scan kernels share: how states lie in memory, loading a group of steps, numbers to and from float32.

Tensors are given as a pointer and strides over (batch, pixel, direction); channels and states are contiguous.
Imports triton only.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

__all__ = ["channel_offsets", "load_vectors", "narrow", "sigmoid", "start_of", "state_offsets"]

_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") == "1")


@triton.jit
def narrow(x: tl.tensor, pointer: tl.tensor) -> tl.tensor:
    """Float32 numbers in the dtype that ``pointer`` points to, rounded to nearest.

    GPUs round so by themselves; Triton's interpreter cuts bfloat16 off, so there the bits are rounded first.
    """
    if _INTERPRETED and pointer.dtype.element_ty == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = bits.to(tl.float32, bitcast=True)
    return x.to(pointer.dtype.element_ty)


@triton.jit
def sigmoid(x: tl.tensor) -> tl.tensor:
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp2(x * -1.4426950408889634))


@triton.jit
def start_of(pointer: tl.tensor, strides: tl.tensor, batch: tl.tensor, direction: tl.tensor) -> tl.tensor:
    """Where a direction of an image starts; ``batch`` and ``direction`` are 64-bit, and so is the offset."""
    return pointer + batch * strides[0] + direction * strides[2]


@triton.jit
def load_vectors(
    pointer: tl.tensor, rows: tl.tensor, stride: tl.tensor, e: tl.tensor, live: tl.tensor, COUNT: tl.constexpr
) -> tl.tensor:
    """Load a vector of channels at each of COUNT rows, in the dtype it has in memory."""
    vectors: tl.tensor = ()
    for j in tl.static_range(COUNT):
        vectors = vectors + (tl.load(pointer + rows[j] * stride + e, mask=live, other=0.0),)
    return vectors


@triton.jit
def channel_offsets(e: tl.tensor, n: tl.tensor, channels: tl.tensor, VECTOR: tl.constexpr) -> tl.tensor:
    """Offsets (BLOCK_N, BLOCK_E) within (N, E).

    Triton lays a tile out by how it is loaded, and the hints decide that: the divisor gives each lane VECTOR
    neighbouring channels, fewer than it could load at once, and the claim of more contiguous ones than that, true of
    any row, has neighbouring lanes take neighbouring channels (triton 3.6 chooses the other axis without it).
    """
    return tl.max_contiguous(tl.multiple_of(n[:, None] * channels + e[None, :], [1, VECTOR]), [1, 2 * VECTOR])


@triton.jit
def state_offsets(block: tl.tensor, BLOCK_N: tl.constexpr, BLOCK_E: tl.constexpr, VECTOR: tl.constexpr) -> tl.tensor:
    """Offsets (BLOCK_N, BLOCK_E) of a block of channels within one state (blocks, BLOCK_N, BLOCK_E).

    States are kept by blocks, padded: a lane reaches all of its own from one address.
    """
    tile = tl.arange(0, BLOCK_N)[:, None] * BLOCK_E + tl.arange(0, BLOCK_E)[None, :]
    return tl.max_contiguous(tl.multiple_of(block * (BLOCK_N * BLOCK_E) + tile, [1, VECTOR]), [1, 2 * VECTOR])
