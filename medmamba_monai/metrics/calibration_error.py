"""How far stated probabilities lie from observed frequencies, in bins. Imports errors only.

The expected calibration error is the mean over bins of |confidence - accuracy|, weighted by their images (Naeini et
al., AAAI 2015, doi:10.1609/aaai.v29i1.9602). It is never negative, so that chance alone makes it larger than 0: with
few images a small value cannot be told from none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import DataError

__all__ = ["BINS", "bin_numbers", "expected_calibration_error", "reliability_bins"]

BINS = 15

Values = npt.NDArray[np.float64]


def bin_numbers(confidence: Any, bins: int = BINS) -> npt.NDArray[np.intp]:
    """Which of ``bins`` equally wide bins of [0, 1] each value lies in; a bin holds its upper edge, the first also 0.

    Args:
        confidence: any shape, in [0, 1].
        bins: how many.

    Example:
        >>> bin_numbers([0.0, 0.2, 0.21, 1.0], bins=5).tolist()
        [0, 0, 1, 4]
    """
    edges = np.linspace(0, 1, bins + 1)
    return np.searchsorted(edges[1:-1], np.asarray(confidence, dtype=np.float64), side="left")


def reliability_bins(confidence: Any, correct: Any, bins: int = BINS) -> list[dict[str, Any]]:
    """The points of a reliability diagram.

    Args:
        confidence: (N,) stated probabilities.
        correct: (N,) whether what they were stated for is so.
        bins: how many equally wide bins.

    Returns:
        For each bin low, high, n, confidence (mean) and accuracy (share that is so); None for both where it is empty.

    Raises:
        DataError: no values, shapes that differ, or values that are no probabilities.

    Example:
        >>> reliability_bins([0.6, 0.8], [True, False], bins=2)[1]
        {'low': 0.5, 'high': 1.0, 'n': 2, 'confidence': 0.7, 'accuracy': 0.5}
    """
    stated, right = _checked(confidence, correct)
    numbers = bin_numbers(stated, bins)
    counts = np.bincount(numbers, minlength=bins)
    means = np.bincount(numbers, stated, bins) / np.maximum(counts, 1)
    shares = np.bincount(numbers, right, bins) / np.maximum(counts, 1)
    return [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "n": int(counts[index]),
            "confidence": float(means[index]) if counts[index] else None,
            "accuracy": float(shares[index]) if counts[index] else None,
        }
        for index in range(bins)
    ]


def expected_calibration_error(confidence: Any, correct: Any, bins: int = BINS) -> float:
    """Mean over bins of the distance between confidence and accuracy, weighted by their images.

    Args:
        confidence: (N,) stated probabilities.
        correct: (N,) whether what they were stated for is so.
        bins: how many equally wide bins.

    Raises:
        DataError: no values, shapes that differ, or values that are no probabilities.

    Example:
        >>> round(expected_calibration_error([0.9, 0.9, 0.9, 0.9], [1, 1, 0, 0]), 3)
        0.4
    """
    stated, right = _checked(confidence, correct)
    gaps = np.bincount(bin_numbers(stated, bins), stated - right, bins)
    return float(np.abs(gaps).sum() / stated.size)


def _checked(confidence: Any, correct: Any) -> tuple[Values, Values]:
    stated, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if stated.size == 0 or stated.ndim != 1 or stated.shape != right.shape:
        raise DataError(f"{stated.shape} confidences and {right.shape} outcomes do not fit")
    if not ((stated >= 0) & (stated <= 1)).all():
        raise DataError("confidences lie outside 0 to 1", remedy="give probabilities")
    return stated, right
