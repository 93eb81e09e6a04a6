"""The end of a block in one pass: interleave two halves and add the residual. Imports triton only."""

from __future__ import annotations

import triton
import triton.language as tl

from .steps import narrow

__all__ = ["interleave_add"]


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
    residual = tl.load(residual_ptr + both, mask=both < 2 * numel, other=0.0).to(tl.float32)
    out = residual + tl.interleave(left, right)
    tl.store(out_ptr + both, narrow(out, out_ptr), mask=both < 2 * numel)
