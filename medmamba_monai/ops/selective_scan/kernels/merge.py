"""Sum over directions in a fixed order, so that the result is deterministic. Imports triton only."""

from __future__ import annotations

import triton
import triton.language as tl

from .steps import narrow

__all__ = ["merge_directions"]


@triton.jit
def merge_directions(
    parts_ptr: tl.tensor,
    total_ptr: tl.tensor,
    numel: tl.tensor,
    blocks: tl.tensor,
    DIRECTIONS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Sum parts (batch, K, numel) over K into total (batch, numel), in float32. Grid: (batch * blocks of numel)."""
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    offset = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = offset < numel
    each = batch * 0 + numel  # in 64 bits
    rows = parts_ptr + batch * DIRECTIONS * numel + offset
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(DIRECTIONS):
        total += tl.load(rows + k * each, mask=live, other=0.0).to(tl.float32)
    tl.store(total_ptr + batch * numel + offset, narrow(total, total_ptr), mask=live)
