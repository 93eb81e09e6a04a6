"""Referral: the network answers where it is most confident and refers the rest; what risk remains.

Risk-coverage curves of R. El-Yaniv, Y. Wiener, JMLR 11:1605, 2010; the area below them (AURC) of Y. Geifman et al.,
Bias-reduced uncertainty estimation, ICLR 2019: the mean risk over the coverages 1/N, 2/N, ..., 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import DataError
from medmamba_monai.metrics.temperature import check_labels

__all__ = ["COVERAGES", "confidence_and_error", "referral_report", "risk_coverage"]

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
POINTS = 200
"""Most points of a curve that is written down."""

Values = npt.NDArray[np.float64]


def confidence_and_error(labels: Any, probabilities: Any, task: str = "multiclass") -> tuple[Values, Values]:
    """What the network thinks of its answers, and how wrong they are.

    Args:
        labels: (N,) class numbers, with task "multilabel" (N, C) of 0 and 1.
        probabilities: (N, C).
        task: "multiclass" or "multilabel".

    Returns:
        (N,) the largest probability, and 0 or 1 for a wrong class; with task "multilabel" the mean over classes of the
        probability of the given answer, and the share of wrong answers (at 0.5).
    """
    values = np.asarray(probabilities, dtype=np.float64)
    truth = check_labels(labels, values, task)
    if task == "multilabel":
        return np.maximum(values, 1 - values).mean(axis=1), ((values >= 0.5) != (truth == 1)).mean(axis=1)
    return values.max(axis=1), (values.argmax(axis=1) != truth).astype(np.float64)


def risk_coverage(confidence: Any, errors: Any) -> Values:
    """Mean error of the k most confident answers, for k = 1 ... N; equal confidences in random order, on average.

    Args:
        confidence: (N,).
        errors: (N,) from 0 to 1.

    Returns:
        (N,) risks; that of coverage k / N is element k - 1.

    Raises:
        DataError: no answers, or the two do not fit.

    Example:
        >>> risk_coverage([0.9, 0.8, 0.8, 0.6], [0, 1, 0, 1]).round(3).tolist()
        [0.0, 0.25, 0.333, 0.5]
    """
    sure, wrong = np.asarray(confidence, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if sure.ndim != 1 or sure.shape != wrong.shape or len(sure) == 0:
        raise DataError(f"{sure.shape} confidences and {wrong.shape} errors do not fit")
    levels, where = np.unique(-sure, return_inverse=True)
    counts = np.bincount(where, minlength=len(levels))
    means = np.bincount(where, wrong, len(levels)) / counts
    return np.asarray(np.cumsum(np.repeat(means, counts)) / np.arange(1, len(sure) + 1))


def referral_report(labels: Any, probabilities: Any, task: str = "multiclass") -> dict[str, Any]:
    """The risk-coverage curve of a set of predictions, ready for JSON.

    Args:
        labels: (N,) class numbers, with task "multilabel" (N, C) of 0 and 1.
        probabilities: (N, C).
        task: "multiclass" or "multilabel".

    Returns:
        curve ([coverage, risk] by rising coverage, at most 200 points), aurc, aurc_best (that of a network that knows
        its errors), at (coverage → risk of the answers kept), risk ("error" or "hamming_loss").
    """
    confidence, errors = confidence_and_error(labels, probabilities, task)
    risks = risk_coverage(confidence, errors)
    total = len(risks)
    kept = np.unique(np.linspace(1, total, min(total, POINTS)).round().astype(int))
    return {
        "curve": [[float(k / total), float(risks[k - 1])] for k in kept],
        "aurc": float(risks.mean()),
        "aurc_best": float(risk_coverage(-errors, errors).mean()),
        "at": {f"{share:g}": float(risks[max(1, round(share * total)) - 1]) for share in COVERAGES},
        "risk": "hamming_loss" if task == "multilabel" else "error",
    }
