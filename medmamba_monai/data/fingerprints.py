"""Finding near duplicates: the same picture re-encoded, resized, mirrored or turned. Imports intensity.

A picture's fingerprint is the pattern of grey-value differences of its 32 x 32 thumbnail (a difference hash with real
numbers instead of bits), square-rooted so that strong edges, which all pictures of a kind share, do not decide alone.
Two pictures are near duplicates where the correlation of their patterns, over the eight mirrored and turned forms of
one of them, exceeds 0.92. In eight sets of medical pictures, re-encoded and resized copies of pictures of 120 pixels
and more lie above it and different pictures below; strongly compressed copies of much smaller pictures can be missed.

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
_DIMENSIONS = 64
_SAMPLE = 512
_BLOCK = 1024


def thumbnail(array: NDArray[np.float32], side: int = SIDE) -> NDArray[np.uint8]:
    """Grey thumbnail (side, side) of a picture (C, H, W), or of the middle slice of a volume (C, H, W, D).

    Example:
        >>> thumbnail(np.ones((3, 50, 70), np.float32)).shape
        (32, 32)
    """
    if array.ndim == 4:
        array = array[..., array.shape[-1] // 2]
    grey = np.ascontiguousarray(convert_color(array, "grey", "thumbnail")[0])
    small = Image.fromarray(grey).resize((side, side), Image.Resampling.BOX)
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


def _basis(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Orthonormal directions (pattern length, k) in which the patterns differ most."""
    from sklearn.utils.extmath import randomized_svd

    sample = thumbs[np.linspace(0, len(thumbs) - 1, min(len(thumbs), _SAMPLE)).astype(int)]
    rows = np.concatenate([_patterns(form) for form in _forms(sample)])
    size = min(_DIMENSIONS, *rows.shape)
    _, _, directions = randomized_svd(rows - rows.mean(axis=0), size, n_iter=2, random_state=0)
    return np.ascontiguousarray(directions.T, dtype=np.float32)


def near_duplicates(thumbs: NDArray[np.uint8], threshold: float = THRESHOLD) -> list[tuple[int, int, float]]:
    """Pairs of thumbnails that show the same picture.

    A projection onto few directions cannot make two patterns more distant, so pairs that are too distant there are
    left out without loss; the others are compared in full.

    Args:
        thumbs: (N, side, side), see ``thumbnail``.
        threshold: correlation above which a pair counts.

    Returns:
        (i, j, correlation) with i < j, in order. Flat thumbnails are in no pair.
    """
    kept = np.flatnonzero(thumbs.min(axis=(1, 2)) < thumbs.max(axis=(1, 2)))
    thumbs = thumbs[kept]
    if len(thumbs) < 2:
        return []
    basis = _basis(thumbs)
    limit = 2 - 2 * threshold  # squared distance of unit vectors with this correlation
    starts = range(0, len(thumbs), _BLOCK)
    plain = np.concatenate([_patterns(thumbs[s : s + _BLOCK]) @ basis for s in starts])
    squares = (plain**2).sum(axis=1)
    pairs: dict[tuple[int, int], float] = {}
    for start in starts:
        block = thumbs[start : start + _BLOCK]
        for form in _forms(block):
            turned = _patterns(form) @ basis
            distance = (turned**2).sum(axis=1)[:, None] + squares[None, start:] - 2 * turned @ plain[start:].T
            rows, columns = np.nonzero(distance < limit + 1e-5)
            rows, columns = rows[columns > rows], columns[columns > rows]
            for first in range(0, len(rows), _BLOCK):
                i, j = rows[first : first + _BLOCK], columns[first : first + _BLOCK]
                similarity = (_patterns(form[i]) * _patterns(thumbs[start + j])).sum(axis=1)
                for a, b, value in zip(i, j, similarity, strict=True):
                    if value > threshold:
                        key = int(kept[start + a]), int(kept[start + b])
                        pairs[key] = max(pairs.get(key, 0.0), float(value))
    return [(i, j, value) for (i, j), value in sorted(pairs.items())]
