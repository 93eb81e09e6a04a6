"""AUC with DeLong's variance, for images or for clusters of them, and the test of two AUCs on the same images.

DeLong et al., Biometrics 1988 (doi:10.2307/2531595), from midranks as Sun and Xu, IEEE Signal Processing Letters 2014
(doi:10.1109/LSP.2014.2337313). DeLong's variance takes images for independent; where a patient has several, Obuchowski,
Biometrics 1997 (doi:10.2307/2533958) adds up the components by patient first. With one image a patient both agree.
From two to four patients with a class the intervals are too narrow, whichever the method: there are none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medmamba_monai.metrics.bootstrap import FEW_CLUSTERS, FEWEST_CLUSTERS

__all__ = ["Areas", "AucTest", "delong_areas", "delong_interval", "delong_test", "too_few"]

FEWEST = 5  # of 95 % intervals from 2, 3, 4, 5 images with a class and 50 without, 84, 87, 90, 90 % hold the AUC

Values = npt.NDArray[np.float64]


class Areas(NamedTuple):
    """AUCs of K models on the same images.

    Attributes:
        auc: (K,).
        covariance: (K, K), or None.
        reason: why there is no covariance.
    """

    auc: Values
    covariance: Values | None
    reason: str = ""


class AucTest(NamedTuple):
    """The difference of two AUCs.

    Attributes:
        difference: second minus first.
        low, high: its interval.
        p: two-sided probability of one at least as large between equal models.
    """

    difference: float
    low: float
    high: float
    p: float


def delong_areas(truth: Any, values: Any, member: Any = None) -> Areas:
    """AUCs of several models and their covariance.

    Args:
        truth: (N,) whether an image has the class; both must occur.
        values: (K, N) scores of K models.
        member: (N,) numbers of the patients or groups the images belong to; None: images are independent.

    Returns:
        The covariance is None where `too_few` has a reason.

    Example:
        >>> truth = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
        >>> areas = delong_areas(truth, [[0.9, 0.4, 0.9, 0.9, 0.9, 0.5, 0.1, 0.1, 0.1, 0.1]])
        >>> float(areas.auc[0].round(3)), float(areas.covariance[0, 0].round(5))
        (0.96, 0.0032)
    """
    from scipy.stats import rankdata

    flags, scores = np.asarray(truth, dtype=bool), np.asarray(values, dtype=np.float64)
    groups = np.arange(flags.size) if member is None else np.asarray(member)
    positives, negatives = int(flags.sum()), int((~flags).sum())
    ranks = rankdata(scores, axis=1)
    # share of negatives below each positive, of positives above each negative
    over = (ranks[:, flags] - rankdata(scores[:, flags], axis=1)) / negatives
    under = 1 - (ranks[:, ~flags] - rankdata(scores[:, ~flags], axis=1)) / positives
    auc = over.mean(1)
    with_positive, with_negative = np.unique(groups[flags]).size, np.unique(groups[~flags]).size
    reason = too_few(flags, groups)
    if reason:
        return Areas(auc, None, reason)
    number = np.unique(groups, return_inverse=True)[1]
    total = int(number.max()) + 1
    above = np.stack([np.bincount(number[flags], row, total) for row in over - auc[:, None]])
    below = np.stack([np.bincount(number[~flags], row, total) for row in under - auc[:, None]])
    cross = above @ below.T * (total / (total - 1))
    covariance = (
        above @ above.T * (with_positive / (with_positive - 1)) / positives**2
        + below @ below.T * (with_negative / (with_negative - 1)) / negatives**2
        + (cross + cross.T) / (positives * negatives)
    )
    return Areas(auc, covariance)


def too_few(truth: Any, member: Any) -> str:
    """Why the patients or images are too few for an interval of a class's AUC or average precision; empty: enough.

    Args:
        truth: (N,) whether an image has the class.
        member: (N,) numbers of the patients or groups the images belong to.

    Example:
        >>> too_few([1] * 4 + [0] * 50, range(54))
        'only 4 groups or images have the class: fewer than 5'
    """
    flags, groups = np.asarray(truth, dtype=bool), np.asarray(member)
    for words, which in (("have", flags), ("lack", ~flags)):
        count = np.unique(groups[which]).size
        if count < FEWEST:
            return f"only {count} groups or images {words} the class: fewer than {FEWEST}"
    total = np.unique(groups).size
    return f"{total} {FEW_CLUSTERS}" if total < FEWEST_CLUSTERS else ""


def delong_interval(auc: float, variance: float, level: float = 0.95) -> tuple[float, float] | None:
    """Interval on the logit scale, so that it stays within 0 and 1; None where the AUC or its variance allow none.

    Example:
        >>> [round(bound, 3) for bound in delong_interval(0.9, 0.0009)]
        [0.824, 0.945]
    """
    from scipy.special import expit, logit, ndtri

    if not (0 < auc < 1 and variance > 0):
        return None
    width = ndtri((1 + level) / 2) * np.sqrt(variance) / (auc * (1 - auc))
    return float(expit(logit(auc) - width)), float(expit(logit(auc) + width))


def delong_test(areas: Areas, level: float = 0.95) -> AucTest | None:
    """Compare the first two models; None where their difference has no variance.

    Example:
        >>> truth = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
        >>> first = [0.9, 0.8, 0.7, 0.9, 0.8, 0.4, 0.5, 0.1, 0.1, 0.2]
        >>> second = [0.9, 0.4, 0.7, 0.9, 0.8, 0.8, 0.5, 0.1, 0.1, 0.2]
        >>> round(delong_test(delong_areas(truth, [first, second])).p, 3)
        0.256
    """
    from scipy.special import ndtr, ndtri

    if areas.covariance is None:
        return None
    (first, both), (_, second) = areas.covariance[:2, :2]
    variance = float(first + second - 2 * both)
    if variance <= 1e-15:
        return None
    difference, deviation = float(areas.auc[1] - areas.auc[0]), float(np.sqrt(variance))
    width = ndtri((1 + level) / 2) * deviation
    p = float(2 * ndtr(-abs(difference) / deviation))
    return AucTest(difference, float(difference - width), float(difference + width), p)
