"""Split-conformal prediction sets: sets of classes that hold the true one with a promised probability.

M. Sadinle, J. Lei, L. Wasserman, Least ambiguous set-valued classifiers with bounded error levels, JASA 114:223, 2019
(LAC): a class belongs to the set where its probability is high enough, measured on images that were not trained on.
Over images exchangeable with those, the set holds the true class with probability 1 - alpha or more, whatever the
network, where nothing but the threshold was fitted on them. Weights and temperature chosen on the same images take a
little of it: see docs/calibration.md. Sets may be empty: no class is probable enough. Where an image may have several
classes there is no one true class to hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import ConfigError
from medmamba_monai.metrics.temperature import check_labels

__all__ = ["conformal_threshold", "coverage_report", "least_images", "prediction_sets"]


def conformal_threshold(labels: Any, probabilities: Any, alpha: float = 0.1) -> float | None:
    """Threshold on a class's 1 - probability up to which it belongs to the set.

    Args:
        labels: (N,) true class numbers.
        probabilities: (N, C), of images the network was not trained on.
        alpha: largest share of sets without the true class.

    Returns:
        The ceil((N + 1)(1 - alpha))-th smallest 1 - probability of the true classes; None where there are too few
        images for any promise but all classes, see :func:`least_images`.

    Raises:
        ConfigError: alpha outside (0, 1).
        DataError: labels and probabilities do not fit together.

    Example:
        >>> conformal_threshold([0] * 9, [[p / 10, 1 - p / 10] for p in range(1, 10)], alpha=0.1)
        0.9
    """
    values = np.asarray(probabilities, dtype=np.float64)
    truth = check_labels(labels, values, "multiclass")
    if len(truth) < least_images(alpha):
        return None
    scores = np.sort(1.0 - np.take_along_axis(values, truth[:, None], axis=1)[:, 0])
    # the product may lie a rounding error above a whole number: 10 * (1 - 0.1) must stay 9
    rank = math.ceil(round((len(truth) + 1) * (1.0 - alpha), 9))
    return float(scores[rank - 1])


def least_images(alpha: float) -> int:
    """Images needed for a promise of 1 - alpha: N with (N + 1)(1 - alpha) <= N.

    Raises:
        ConfigError: alpha outside (0, 1).

    Example:
        >>> least_images(0.1), least_images(0.05)
        (9, 19)
    """
    if not 0.0 < alpha < 1.0:
        raise ConfigError(f"alpha={alpha} lies outside 0 to 1", remedy="give a number between them")
    return math.ceil(round(1.0 / alpha - 1.0, 9))


def prediction_sets(probabilities: Any, threshold: float) -> npt.NDArray[np.bool_]:
    """Which classes belong to each image's set.

    Args:
        probabilities: (N, C), made as those that gave the threshold.
        threshold: from :func:`conformal_threshold`.

    Returns:
        (N, C) booleans.

    Example:
        >>> prediction_sets([[0.7, 0.2, 0.1]], 0.8).tolist()
        [[True, True, False]]
    """
    # predictions.csv has 8 digits: a probability on the threshold stays inside when it is read back
    return np.asarray(1.0 - np.asarray(probabilities, dtype=np.float64) <= threshold + 1e-7)


def coverage_report(
    labels: Any, probabilities: Any, class_names: Sequence[str], threshold: float, alpha: float
) -> dict[str, Any]:
    """How often the sets of other images hold the true class, and how large they are.

    Args:
        labels: (N,) true class numbers.
        probabilities: (N, C).
        class_names: C names.
        threshold: from :func:`conformal_threshold`.
        alpha: the share of errors it was made for.

    Returns:
        alpha, coverage, coverage_interval (exact binomial, 95 %, images taken as independent), mean_set_size, sizes
        (size → number of images), per_class (name → coverage among its images, None without any: the promise is
        for all classes together).
    """
    from scipy.stats import binomtest

    values = np.asarray(probabilities, dtype=np.float64)
    truth = check_labels(labels, values, "multiclass")
    sets = prediction_sets(values, threshold)
    held = np.take_along_axis(sets, truth[:, None], axis=1)[:, 0]
    interval = binomtest(int(held.sum()), len(held)).proportion_ci(0.95, method="exact")
    sizes = np.bincount(sets.sum(axis=1), minlength=values.shape[1] + 1)
    per_class = {
        name: float(held[truth == index].mean()) if (truth == index).any() else None
        for index, name in enumerate(class_names)
    }
    return {
        "alpha": float(alpha),
        "coverage": float(held.mean()),
        "coverage_interval": [float(interval.low), float(interval.high)],
        "mean_set_size": float(sets.sum(axis=1).mean()),
        "sizes": {str(size): int(count) for size, count in enumerate(sizes)},
        "per_class": per_class,
    }
