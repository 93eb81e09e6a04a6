"""The end of a block in one pass: interleave two halves and add the residual; and back. Imports triton only."""

from __future__ import annotations

import triton
import triton.language as tl

from .steps import narrow

__all__ = ["deinterleave", "interleave_add"]


@triton.jit
def interleave_add(
    residual_ptr: tl.tensor,
    left_ptr: tl.tensor,
    right_ptr: tl.tensor,
    out_ptr: tl.tensor,
    numel: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Write residual + (left 0, right 0, left 1, ..), halves of ``numel`` numbers each. Grid: (blocks of numel)."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    half = start + tl.arange(0, BLOCK)
    both = 2 * start + tl.arange(0, 2 * BLOCK)
    left = tl.load(left_ptr + half, mask=half < numel, other=0.0).to(tl.float32)
    right = tl.load(right_ptr + half, mask=half < numel, other=0.0).to(tl.float32)
    live = both - numel < numel  # twice numel may exceed 32 bits
    residual = tl.load(residual_ptr + both, mask=live, other=0.0).to(tl.float32)
    out = residual + tl.interleave(left, right)
    tl.store(out_ptr + both, narrow(out, out_ptr), mask=live)


@triton.jit
def deinterleave(
    both_ptr: tl.tensor, left_ptr: tl.tensor, right_ptr: tl.tensor, numel: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Write every second number to left, the others to right, ``numel`` each. Grid: (blocks of numel)."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    half = start + tl.arange(0, BLOCK)
    both = 2 * start + tl.arange(0, 2 * BLOCK)
    pairs = tl.load(both_ptr + both, mask=both - numel < numel, other=0.0).to(tl.float32)
    left, right = tl.split(tl.reshape(pairs, [BLOCK, 2]))
    tl.store(left_ptr + half, narrow(left, left_ptr), mask=half < numel)
    tl.store(right_ptr + half, narrow(right, right_ptr), mask=half < numel)
