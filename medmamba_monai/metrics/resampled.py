"""Every metric of a report for many resamples of the images at once. Imports numpy and SciPy.

A resample is a weight for each cluster: how often it was drawn. What is a sum over images (counts, losses, gaps of
calibration bins) is added up by cluster once, so that all resamples are one product of matrices; what needs the order
of scores comes from metrics.ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.metrics.calibration_error import BINS, bin_numbers
from medmamba_monai.metrics.counts import binary_metrics, table_metrics
from medmamba_monai.metrics.ranks import WeightedRanks

__all__ = ["Key", "ResampledMetrics", "normalised"]

Key = tuple[str, str | None]
"""Metric, and class or None for all of them."""

CHUNK = 64  # resamples a pass: the weights of ten thousand images stay in the processor's cache
SMALLEST = float(np.finfo(np.float64).eps)  # as scikit-learn's log_loss clips
MACRO = {
    "multiclass": ("auc", "average_precision", "f1", "sensitivity", "specificity"),
    "multilabel": ("auc", "average_precision", "f1", "sensitivity", "specificity", "mcc", "brier"),
}

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


class ResampledMetrics:
    """The metrics of one set of predictions as a function of cluster weights.

    Args:
        truth: (N, C) whether an image has a class; one a row with task "multiclass".
        values: (N, C) scores.
        called: (N, C) what is predicted.
        member: (N,) cluster numbers from 0, without gaps.
        class_names: C names.
        task: "multiclass" or "multilabel".
        probabilities: whether the scores are probabilities; without, losses and calibration are left out.

    Example:
        >>> truth = np.array([[True, False], [False, True], [False, True]])
        >>> values = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
        >>> called = np.eye(2, dtype=bool)[values.argmax(1)]
        >>> metrics = ResampledMetrics(truth, values, called, np.arange(3), ["a", "b"])
        >>> metrics(np.array([[1.0, 1, 1], [1, 2, 0]]))["accuracy", None].round(3).tolist()
        [0.667, 1.0]
    """

    def __init__(
        self,
        truth: Flags,
        values: Values,
        called: Flags,
        member: npt.NDArray[np.intp],
        class_names: Sequence[str],
        task: str = "multiclass",
        probabilities: bool = True,
    ) -> None:
        self.clusters = int(member.max()) + 1
        self._names, self._task, self._member = list(class_names), task, member
        self._ranks = [WeightedRanks(truth[:, index], values[:, index]) for index in range(len(self._names))]
        self._sizes = np.bincount(member).astype(np.float64)
        self._counts = self._by_cluster(_cells(truth, called, task))
        self._losses: Values | None = None
        if probabilities:
            self._losses = self._by_cluster(_losses(truth, values, task)).toarray()
            self._gaps = self._by_cluster(_gaps(truth, values, task))

    def __call__(self, weights: Values) -> dict[Key, Values]:
        """All metrics under each weighting.

        Args:
            weights: (R, G) how often each of the G clusters counts.

        Returns:
            (R,) for each metric and class, NaN where a resample leaves it undefined.
        """
        parts = [self._of_chunk(weights[start : start + CHUNK]) for start in range(0, len(weights), CHUNK)]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _of_chunk(self, weights: Values) -> dict[Key, Values]:
        found = self._counted(weights)
        of_images = np.ascontiguousarray(weights.T)[self._member]
        for name, ranks in zip(self._names, self._ranks, strict=True):
            found["auc", name], found["average_precision", name] = ranks(of_images)
        if self._losses is not None:
            found |= self._stated(weights, self._losses)
        for metric in MACRO[self._task]:
            if (metric, self._names[0]) in found:
                found[metric, None] = np.mean([found[metric, name] for name in self._names], axis=0)
        if self._task == "multiclass":
            found["balanced_accuracy", None] = found["sensitivity", None]
        return found

    def _counted(self, weights: Values) -> dict[Key, Values]:
        classes = len(self._names)
        sums = (self._counts.T @ weights.T).T
        found: dict[Key, Values] = {}
        total = weights @ self._sizes
        if self._task == "multiclass":
            table = sums.reshape(-1, classes, classes)
            found |= {(name, None): values for name, values in table_metrics(table).items()}
            tp = np.diagonal(table, axis1=1, axis2=2)
            fn, fp = table.sum(2) - tp, table.sum(1) - tp
            tn = total[:, None] - tp - fn - fp
        else:
            tp, fp, fn, tn = np.moveaxis(sums[:, 1:].reshape(-1, classes, 4), 2, 0)
            found["exact_match", None] = sums[:, 0] / total
            found["hamming_loss", None] = (fp + fn).sum(1) / (total * classes)
        for name, values in binary_metrics(tp, fp, fn, tn).items():
            found |= {(name, each): values[:, index] for index, each in enumerate(self._names)}
        return found

    def _stated(self, weights: Values, losses: Values) -> dict[Key, Values]:
        """Brier scores, log loss and calibration errors: sums of losses and of the bins' gaps over sums of weights."""
        total = weights @ self._sizes
        means = (weights @ losses) / total[:, None]
        gaps = np.abs((self._gaps.T @ weights.T).T).reshape(len(weights), -1, BINS).sum(2) / total[:, None]
        if self._task == "multilabel":
            gaps[:, 0] /= len(self._names)
        found: dict[Key, Values] = {("log_loss", None): means[:, 0], ("ece", None): gaps[:, 0]}
        if self._task == "multiclass":
            found["brier", None] = means[:, 1]
        for index, name in enumerate(self._names):
            found["brier", name], found["ece", name] = means[:, 2 + index], gaps[:, 1 + index]
        return found

    def _by_cluster(self, rows: Any) -> Any:
        """Sum (N, K) rows, sparse, by cluster: (G, K)."""
        from scipy.sparse import csr_matrix

        images = len(self._member)
        gather = csr_matrix((np.ones(images), (self._member, np.arange(images))), shape=(self.clusters, images))
        return (gather @ csr_matrix(rows)).tocsr()


def _cells(truth: Flags, called: Flags, task: str) -> Any:
    """For each image 1 at its cell of the confusion matrix; or whether all is right, then tp, fp, fn, tn by class."""
    from scipy.sparse import csr_matrix

    images, classes = truth.shape
    if task == "multiclass":
        cell = truth.argmax(1) * classes + called.argmax(1)
        return csr_matrix((np.ones(images), (np.arange(images), cell)), shape=(images, classes**2))
    four = np.stack([truth & called, ~truth & called, truth & ~called, ~truth & ~called], axis=2)
    right = (truth == called).all(1)
    return csr_matrix(np.concatenate([right[:, None], four.reshape(images, -1)], axis=1).astype(np.float64))


def _losses(truth: Flags, values: Values, task: str) -> Values:
    """(N, 2 + C): log loss and Brier score of each image, then the squared error of each class."""
    stated = values if task == "multilabel" else normalised(values)
    clipped = np.clip(stated, SMALLEST, 1 - SMALLEST)
    logs = -np.log(np.where(truth, clipped, 1 - clipped))
    loss = logs.mean(1) if task == "multilabel" else (logs * truth).sum(1)
    brier = ((stated - truth) ** 2).sum(1) / (2 if truth.shape[1] == 2 else 1)
    return np.column_stack([loss, brier, (np.clip(values, 0, 1) - truth) ** 2])


def normalised(values: Values) -> Values:
    """Rows that sum to one but for the digits of a table, exactly so; for losses only, since it may part equal scores.

    Example:
        >>> normalised(np.array([[0.2, 0.7999]])).sum().round(12)
        np.float64(1.0)
    """
    return values / values.sum(1, keepdims=True)


def _gaps(truth: Flags, values: Values, task: str) -> Any:
    """(N, (1 + C) * BINS): confidence minus outcome in its bin; first of what is predicted, then class by class.

    With several classes an image, all single answers stand together in place of what is predicted.
    """
    from scipy.sparse import coo_matrix

    images, classes = truth.shape
    values = np.clip(values, 0, 1)
    row = np.repeat(np.arange(images), classes)
    bins = bin_numbers(values).ravel()
    column = bins + (1 + np.tile(np.arange(classes), images)) * BINS
    gap = (values - truth).ravel()
    if task == "multiclass":
        top = values.argmax(1)
        picked = np.arange(images), top
        first = (values[picked] - truth[picked], np.arange(images), bins.reshape(images, classes)[picked])
    else:
        first = (gap, row, bins)
    entries = [np.concatenate(pair) for pair in zip(first, (gap, row, column), strict=True)]
    return coo_matrix((entries[0], (entries[1], entries[2])), shape=(images, (1 + classes) * BINS))
