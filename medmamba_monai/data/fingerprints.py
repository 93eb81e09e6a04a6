"""Finding near duplicates: the same picture re-encoded, resized, mirrored or turned. Imports intensity.

A picture's fingerprint is the pattern of grey-value differences of its 32 x 32 thumbnail (a difference hash with real
numbers instead of bits), square-rooted so that strong edges, which all pictures of a kind share, do not decide alone.
Two pictures are near duplicates where the correlation of their patterns, over the eight mirrored and turned forms of
one of them, exceeds 0.92. In nine sets of medical pictures, re-encoded and resized copies of pictures of 120 pixels
and more lie above it, different pictures below 0.89; strongly compressed copies of much smaller pictures can be missed.
What it finds are also the next frame of a film and the next slice of a scan.

Volumes are compared by their middle slices in the same way. Heads are alike there, so a pair must also agree as a
whole: the patterns of the two volumes, each pooled to 16 x 16 x 16 voxels, over the eight mirrored forms of one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medmamba_monai.data.intensity import convert_color

__all__ = ["THRESHOLD", "near_duplicates", "pooled", "thumbnail", "volume_similarity"]

SIDE = 32
VOLUME_SIDE = 16
THRESHOLD = 0.92
_COARSE, _FINE = 64, 256  # random directions
_BLOCK = 1024
_CHUNK = 4096


def thumbnail(array: NDArray[np.float32], side: int = SIDE) -> NDArray[np.uint8]:
    """Grey thumbnail (side, side) of a picture (C, H, W), or of the middle slice of a volume (C, H, W, D).

    Example:
        >>> thumbnail(np.ones((3, 50, 70), np.float32)).shape
        (32, 32)
    """
    if array.ndim == 4:
        array = array[..., array.shape[-1] // 2]
    grey = np.ascontiguousarray(convert_color(array, "grey", "thumbnail")[0])
    small = Image.fromarray(grey).resize((side, side), Image.Resampling.HAMMING)
    return np.rint(np.clip(np.asarray(small), 0, 1) * 255).astype(np.uint8)


def pooled(volume: NDArray[np.float32], side: int = VOLUME_SIDE) -> NDArray[np.float32]:
    """Mean grey values (side, side, side) of a volume (C, H, W, D), for ``volume_similarity``.

    Example:
        >>> pooled(np.ones((1, 40, 30, 20), np.float32)).shape
        (16, 16, 16)
    """
    import torch

    grey = convert_color(volume, "grey", "volume")
    return np.asarray(torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(np.ascontiguousarray(grey)), side)[0])


def _volume_pattern(small: NDArray[np.float32]) -> NDArray[np.float32]:
    steps = np.concatenate([np.diff(small, axis=axis).ravel() for axis in range(3)])
    steps = np.sign(steps) * np.sqrt(np.abs(steps))
    length = float(np.linalg.norm(steps))
    return steps / length if length else steps


def volume_similarity(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Correlation of the patterns of two pooled volumes, the largest over the mirrored forms of one; 0 if one is flat.

    Example:
        >>> small = np.random.default_rng(0).random((16, 16, 16), np.float32)
        >>> round(volume_similarity(small, 3 * small[:, ::-1] + 1), 4)
        1.0
    """
    wanted = _volume_pattern(b)
    turns = itertools.product((1, -1), repeat=3)
    return max(float(_volume_pattern(a[::i, ::j, ::k]) @ wanted) for i, j, k in turns)


def _forms(thumbs: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """The eight mirrored and turned forms of (N, side, side)."""
    for turned in (thumbs, np.swapaxes(thumbs, 1, 2)):
        yield from (turned, turned[:, ::-1], turned[:, :, ::-1], turned[:, ::-1, ::-1])


def _patterns(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Unit vectors (N, 2 side (side - 1)) of the thumbnails' differences; zero for a flat thumbnail."""
    levels = thumbs.astype(np.float32)
    # whole rows and columns of differences, so that turning the thumbnail turns its pattern
    down, right = np.diff(levels, axis=1), np.diff(levels, axis=2)
    size = levels.shape[1] * (levels.shape[1] - 1)
    steps = np.concatenate([down.reshape(-1, size), right.reshape(-1, size)], axis=1)
    steps = np.sign(steps) * np.sqrt(np.abs(steps))
    length = np.linalg.norm(steps, axis=1, keepdims=True)
    return np.divide(steps, length, out=np.zeros_like(steps), where=length > 0)


def _projections(thumbs: NDArray[np.uint8], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Patterns (N, length) as seen by the directions (length, k): (N, k)."""
    parts = [_patterns(thumbs[start : start + _BLOCK]) @ basis for start in range(0, len(thumbs), _BLOCK)]
    return np.concatenate(parts)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def _floor(threshold: float, dimensions: int) -> float:
    """Below this the correlation of two projections leaves no doubt that the patterns' own is below ``threshold``.

    The correlation of projections onto k random directions scatters around the true one, r, with a standard
    deviation of (1 - r^2) / sqrt(k); this is six of them away.
    """
    return threshold - 6 * (1 - threshold**2) / dimensions**0.5


def near_duplicates(
    thumbs: NDArray[np.uint8], threshold: float = THRESHOLD, progress: bool = False
) -> list[tuple[int, int, float]]:
    """Pairs of thumbnails that show the same picture.

    All pairs are compared by projections of their patterns onto a few random directions, those that may be alike by
    projections onto more, and what is left by the patterns themselves. The time grows with the square of the number
    of pictures: two seconds of a core for 5,000, five minutes for 100,000.

    Args:
        thumbs: (N, side, side), see ``thumbnail``.
        threshold: correlation above which a pair counts.
        progress: show a progress bar once it takes longer than two seconds.

    Returns:
        (i, j, correlation) with i < j, in order. Flat thumbnails are in no pair.
    """
    from tqdm import tqdm

    kept = np.flatnonzero(thumbs.min(axis=(1, 2)) < thumbs.max(axis=(1, 2)))
    thumbs = thumbs[kept]
    if len(thumbs) < 2:
        return []
    side = thumbs.shape[1]
    basis = np.random.default_rng(0).standard_normal((2 * side * (side - 1), _FINE), dtype=np.float32)
    fine = _projections(thumbs, basis)
    coarse, fine = _unit(fine[:, :_COARSE]), _unit(fine)
    pairs: dict[tuple[int, int], float] = {}
    starts = range(0, len(thumbs), _BLOCK)
    for start in tqdm(starts, desc="comparing images", delay=2, disable=not progress):
        for form in _forms(thumbs[start : start + _BLOCK]):
            turned = _patterns(form) @ basis
            likely = _unit(turned[:, :_COARSE]) @ coarse[start:].T > _floor(threshold, _COARSE)
            rows, columns = np.nonzero(likely)
            rows, columns = rows[columns > rows], columns[columns > rows]
            turned = _unit(turned)
            for first in range(0, len(rows), _CHUNK):
                i, j = rows[first : first + _CHUNK], columns[first : first + _CHUNK] + start
                close = np.einsum("nk,nk->n", turned[i], fine[j]) > _floor(threshold, _FINE)
                i, j = i[close], j[close]
                similarity = np.einsum("nk,nk->n", _patterns(form[i]), _patterns(thumbs[j]))
                for a, b, value in zip(i, j, similarity, strict=True):
                    if value > threshold:
                        key = int(kept[start + a]), int(kept[b])
                        pairs[key] = max(pairs.get(key, 0.0), min(float(value), 1.0))
    return [(i, j, value) for (i, j), value in sorted(pairs.items())]
