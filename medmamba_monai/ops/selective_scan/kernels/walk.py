"""Which pixel a step visits: the step itself, an entry of an index table, or a place reached by strides.

A direction that walks along the axes is six numbers (plan.walks): ``start``, the pixel of step 0; ``size`` of the axis
that runs fastest and ``step`` along it; ``jump``, what is added where that axis ends; ``rows``, the size of the axis
before it, and ``leap``, added where that one ends too. So step t visits

    start + t step + (t // size) jump + (t // (size rows)) leap

and a program that goes from step to step needs no division and reads no table: a cursor (pixel, steps since the line
began, lines since the slice began) tells it where lines end. (Only the kernel of the step sizes goes by the table: it
takes many steps at once, and divisions cost it more than loads.) Imports triton only.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["cursor_at", "direction_of", "times_at", "visit", "visit_back"]

# How pixels are found, the constexpr ORDER of all kernels: 0 the step itself, 1 by a table, 2 and 3 by strides over two
# and three axes.
_TABLE, _FLAT, _DEEP = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)


@triton.jit
def direction_of(walks: tl.tensor, k: tl.tensor, DIRECTIONS: tl.constexpr) -> tl.tensor:
    """The six numbers of direction ``k``, out of those of all directions."""
    which = k.to(tl.int32)
    way: tl.tensor = ()
    for part in tl.static_range(6):
        number = which * 0 + walks[part]
        for other in tl.static_range(1, DIRECTIONS):
            number = tl.where(which == other, walks[6 * other + part], number)
        way = way + (number,)
    return way


@triton.jit
def cursor_at(way: tl.tensor, t: tl.tensor, ORDER: tl.constexpr) -> tl.tensor:
    """The cursor of step ``t``; zeros where there are no strides."""
    if ORDER >= _FLAT:
        line = t // way[1]
        pixel = way[0] + t * way[2] + line * way[3]
        row = line * 0
        if ORDER == _DEEP:
            pixel += line // way[4] * way[5]
            row += line % way[4]
        return pixel, t % way[1], row
    else:
        return t * 0, t * 0, t * 0


@triton.jit
def _forth(way: tl.tensor, cursor: tl.tensor, COUNT: tl.constexpr, ORDER: tl.constexpr) -> tl.tensor:
    """The cursor COUNT steps on; no line ends before the last of them."""
    pixel, since, row = cursor
    since += COUNT
    ends = since == way[1]
    pixel += COUNT * way[2] + tl.where(ends, way[3], 0)
    since = tl.where(ends, 0, since)
    if ORDER == _DEEP:
        row += tl.where(ends, 1, 0)
        last = row == way[4]
        pixel += tl.where(last, way[5], 0)
        row = tl.where(last, 0, row)
    return pixel, since, row


@triton.jit
def _back(way: tl.tensor, cursor: tl.tensor, COUNT: tl.constexpr, ORDER: tl.constexpr) -> tl.tensor:
    """The cursor COUNT steps before; undoes ``_forth``."""
    pixel, since, row = cursor
    begins = since == 0
    pixel -= COUNT * way[2] + tl.where(begins, way[3], 0)
    if ORDER == _DEEP:
        first = begins & (row == 0)
        pixel -= tl.where(first, way[5], 0)
        row = tl.where(first, way[4], row) - tl.where(begins, 1, 0)
    since = tl.where(begins, way[1], since) - COUNT
    return pixel, since, row


@triton.jit
def _wide(pixel: tl.tensor, WIDE: tl.constexpr) -> tl.tensor:
    """WIDE: as a 64-bit integer, for images in which offsets need them."""
    return pixel.to(tl.int64) if WIDE else pixel.to(tl.int32)


@triton.jit
def _inside(pixel: tl.tensor, final: tl.tensor) -> tl.tensor:
    """The pixel itself, or the last one for what lies beyond either end of the map: as unsigned, negative is large."""
    return tl.minimum(pixel.to(tl.uint32, bitcast=True), (pixel * 0 + final).to(tl.uint32, bitcast=True))


@triton.jit
def times_at(first: tl.tensor, final: tl.tensor, COUNT: tl.constexpr, WIDE: tl.constexpr) -> tl.tensor:
    """The steps ``first``, ``first + 1``, .., the step ``final`` again beyond the end."""
    times: tl.tensor = ()
    for j in tl.static_range(COUNT):
        times = times + (_wide(tl.minimum(first + j, final), WIDE),)
    return times


@triton.jit
def _read(
    order_ptr: tl.tensor, first: tl.tensor, final: tl.tensor, COUNT: tl.constexpr, WIDE: tl.constexpr
) -> tl.tensor:
    pixels: tl.tensor = ()
    for j in tl.static_range(COUNT):
        pixels = pixels + (_wide(tl.load(order_ptr + tl.minimum(first + j, final)), WIDE),)
    return pixels


@triton.jit
def _line(
    way: tl.tensor, pixel: tl.tensor, first: tl.tensor, final: tl.tensor, COUNT: tl.constexpr, WIDE: tl.constexpr
) -> tl.tensor:
    """COUNT pixels of one line from ``pixel`` on, those of the first line instead beyond the end."""
    pixel = tl.where(first > final, way[0], pixel)
    pixels: tl.tensor = ()
    for j in tl.static_range(COUNT):
        pixels = pixels + (_wide(pixel + j * way[2], WIDE),)
    return pixels


@triton.jit
def visit(
    way: tl.tensor,
    order_ptr: tl.tensor,
    cursor: tl.tensor,
    first: tl.tensor,
    final: tl.tensor,
    COUNT: tl.constexpr,
    ORDER: tl.constexpr,
    EVEN: tl.constexpr,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """The pixels of COUNT steps from ``first`` on, any pixel beyond ``final``, and the cursor after them.

    EVEN: COUNT divides all lines, and ``first``.
    """
    pixels: tl.tensor = ()
    if ORDER >= _FLAT:
        if EVEN:
            pixels = _line(way, cursor[0], first, final, COUNT, WIDE)
            cursor = _forth(way, cursor, COUNT, ORDER)
        else:
            for _ in tl.static_range(COUNT):
                pixels = pixels + (_wide(_inside(cursor[0], final), WIDE),)
                cursor = _forth(way, cursor, 1, ORDER)
    elif ORDER == _TABLE:
        pixels = _read(order_ptr, first, final, COUNT, WIDE)
    else:
        pixels = times_at(first, final, COUNT, WIDE)
    return pixels, cursor


@triton.jit
def visit_back(
    way: tl.tensor,
    order_ptr: tl.tensor,
    cursor: tl.tensor,
    first: tl.tensor,
    final: tl.tensor,
    COUNT: tl.constexpr,
    ORDER: tl.constexpr,
    EVEN: tl.constexpr,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """As ``visit``, but the cursor given is the one after the COUNT steps, and that of ``first`` is returned."""
    pixels: tl.tensor = ()
    if ORDER >= _FLAT:
        if EVEN:
            cursor = _back(way, cursor, COUNT, ORDER)
            pixels = _line(way, cursor[0], first, final, COUNT, WIDE)
        else:
            for _ in tl.static_range(COUNT):
                cursor = _back(way, cursor, 1, ORDER)
                pixels = (_wide(_inside(cursor[0], final), WIDE),) + pixels
    elif ORDER == _TABLE:
        pixels = _read(order_ptr, first, final, COUNT, WIDE)
    else:
        pixels = times_at(first, final, COUNT, WIDE)
    return pixels, cursor
