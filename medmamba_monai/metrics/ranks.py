"""AUC and average precision of one class under many weightings of the images, from one sort. Imports nothing.

scikit-learn takes one weighting a call and sorts anew each time; a thousand resamples of ten thousand images and ten
classes would take minutes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["WeightedRanks"]

Values = npt.NDArray[np.float64]


class WeightedRanks:
    """Images of one class against the rest, sorted by score once.

    A resample is a weight for each image: how often it was drawn. Images of equal score share a level. With weights
    summed level by level from the highest score downwards, the area is the chance that a positive lies above a
    negative, ties counted half, and the average precision sums precision over the steps of recall, as scikit-learn
    defines it.

    Args:
        truth: (N,) whether the image is of the class.
        values: (N,) scores, larger for the class.

    Example:
        >>> ranks = WeightedRanks(np.array([True, False, True]), np.array([0.9, 0.6, 0.4]))
        >>> [float(value.round(3)[0]) for value in ranks(np.ones((3, 1)))]
        [0.5, 0.833]
    """

    def __init__(self, truth: npt.NDArray[np.bool_], values: Values) -> None:
        self._order = np.argsort(-values, kind="stable")
        ordered = values[self._order]
        self._positives = np.flatnonzero(truth[self._order])
        self._defined = 0 < self._positives.size < truth.size
        level = np.cumsum(np.concatenate([[0], ordered[1:] != ordered[:-1]]))
        levels, self._groups = np.unique(level[self._positives], return_index=True)
        self._first = np.searchsorted(level, levels, side="left")  # images above the level
        self._last = np.searchsorted(level, levels, side="right")  # and with it

    def __call__(self, weights: Values) -> tuple[Values, Values]:
        """AUC and average precision, NaN where a weighting has no positive or no negative.

        Args:
            weights: (N, R) not negative.

        Returns:
            (R,) areas and (R,) average precisions; the latter is 1 where all are positive.
        """
        count = weights.shape[1]
        if self._positives.size == 0:
            return np.full(count, np.nan), np.full(count, np.nan)
        ordered = weights[self._order]
        above = np.concatenate([np.zeros((1, count)), np.cumsum(ordered, axis=0)])
        gained = np.add.reduceat(ordered[self._positives], self._groups, axis=0)  # positives of each level
        found = np.cumsum(gained, axis=0)
        reached, before = above[self._last], above[self._first]
        positives = found[-1]
        negatives = above[-1] - positives
        beaten = negatives - (reached - found + before - (found - gained)) / 2
        precision = np.divide(found, reached, out=np.zeros_like(found), where=reached > 0)
        pairs = positives * negatives
        with np.errstate(invalid="ignore", divide="ignore"):
            auc = np.where(pairs > 0, (gained * beaten).sum(0) / pairs, np.nan)
            average = np.where(positives > 0, (gained * precision).sum(0) / positives, np.nan)
        return (auc if self._defined else np.full(count, np.nan)), average
