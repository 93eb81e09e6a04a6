"""How unlike the validation images an image is. Imports errors, NumPy, SciPy and scikit-learn.

The Mahalanobis distance of an image's pooled features from those of the validation part (K. Lee et al., NeurIPS 2018,
with one Gaussian for all classes and the shrunk covariance of O. Ledoit, M. Wolf, JMVA 88:365, 2004), or, where a
network shows no features, the energy of its logits (W. Liu et al., NeurIPS 2020; over labels H. Wang et al., NeurIPS
2021).
docs/calibration.md compares them on real images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medmamba_monai.errors import DataError
from medmamba_monai.metrics.bootstrap import cluster_numbers

__all__ = ["LEAST_IMAGES", "Gaussian", "UnusualImages", "detection_auroc", "energy"]

LEAST_IMAGES = 20
FEW_GROUPS = 20
FOLDS = 20
USUAL = 0.95

Values = npt.NDArray[np.float64]


def energy(logits: Any, task: str = "multiclass") -> Values:
    """Energy of logits (N, C), larger for images unlike those of training.

    Example:
        >>> energy([[0.0, 0.0], [9.0, 0.0]]).round(2).tolist()
        [-0.69, -9.0]
    """
    from scipy.special import logsumexp

    values = np.asarray(logits, dtype=np.float64)
    if task == "multilabel":
        return np.asarray(-np.logaddexp(0.0, values).sum(axis=1))
    return np.asarray(-logsumexp(values, axis=1))


def detection_auroc(usual: Any, unusual: Any) -> float:
    """Probability that an unusual image has a larger score than a usual one, equal scores counting half.

    Example:
        >>> detection_auroc([0.1, 0.2], [0.2, 0.9])
        0.875
    """
    from sklearn.metrics import roc_auc_score

    labels = np.r_[np.zeros(len(usual)), np.ones(len(unusual))]
    return float(roc_auc_score(labels, np.r_[np.asarray(usual), np.asarray(unusual)]))


@dataclass(frozen=True)
class Gaussian:
    """One normal distribution of features.

    Attributes:
        mean: (D,).
        whitening: (D, D); a deviation times it has the Mahalanobis distance as its length.
    """

    mean: Values
    whitening: Values

    @classmethod
    def fit(cls, features: Any) -> Gaussian:
        """Fit mean and shrunk covariance to features (N, D).

        Raises:
            DataError: features that are all equal or not finite.
        """
        from sklearn.covariance import ledoit_wolf

        values = np.asarray(features, dtype=np.float64)
        if not np.isfinite(values).all() or float(values.var(axis=0).sum()) <= 0:
            raise DataError("the features of all images are equal, or not finite")
        mean = values.mean(axis=0)
        covariance, _ = ledoit_wolf(values - mean, assume_centered=True)
        return cls(mean, np.linalg.cholesky(np.linalg.inv(covariance)))

    def distance(self, features: Any) -> Values:
        """Mahalanobis distances (N,) of features (N, D)."""
        deviations = np.asarray(features, dtype=np.float64) - self.mean
        return np.asarray(np.linalg.norm(deviations @ self.whitening, axis=1))


@dataclass(frozen=True)
class UnusualImages:
    """Scores that are 0 for the median validation image and 1 at their 95th percentile.

    Attributes:
        gaussian: of the features; None where the network shows none: then the energy is taken.
        task: "multiclass" or "multilabel".
        scales: method → (median, distance from there to the 95th percentile) of the raw scores.
    """

    gaussian: Gaussian | None
    task: str
    scales: dict[str, tuple[float, float]]

    @classmethod
    def fit(
        cls, logits: Any, features: Any | None, task: str = "multiclass", groups: Sequence[Any] | None = None
    ) -> tuple[UnusualImages | None, list[str]]:
        """Learn from the validation part; distances are measured on patients left out of the fit, in 20 folds.

        Images of one patient resemble each other: beside others of its own an image looks more usual than one of a new
        patient does.

        Args:
            logits: (N, C).
            features: (N, D) pooled features, or None.
            task: "multiclass" or "multilabel".
            groups: (N,) patients or other groups that images belong to; None: images are independent.

        Returns:
            The scorer, None where there are too few images; and remarks.
        """
        values = np.asarray(logits, dtype=np.float64)
        if len(values) < LEAST_IMAGES:
            return None, [f"no ood_score: it needs {LEAST_IMAGES} validation images, there are {len(values)}"]
        raw, gaussian, remarks = {"energy": energy(values, task)}, None, []
        member = cluster_numbers(groups, len(values))
        count = int(member.max()) + 1
        if count < FEW_GROUPS:
            remarks.append(f"ood_score rests on only {count} patients or groups: more or less than 5 % may lie above 1")
        if features is None:
            remarks.append("ood_score is the energy: the network has no forward_features to take features from")
        else:
            try:
                raw["mahalanobis"] = _left_out(np.asarray(features, dtype=np.float64), member)
                gaussian = Gaussian.fit(features)
            except DataError as error:
                remarks.append(f"ood_score is the energy: {error}")
        scales = {name: (float(np.median(v)), float(np.quantile(v, USUAL) - np.median(v))) for name, v in raw.items()}
        scales = {name: scale for name, scale in scales.items() if scale[1] > 0}
        if not scales:
            return None, ["no ood_score: all validation images score the same"]
        return cls(gaussian, task, scales), remarks

    def method(self, has_features: bool) -> str:
        """Which score is used: mahalanobis where both sides have features, else energy."""
        return "mahalanobis" if has_features and self.gaussian is not None else "energy"

    def score(self, logits: Any, features: Any | None) -> Values:
        """Scores (N,) of other images.

        Raises:
            DataError: neither score can be had.
        """
        method = self.method(features is not None)
        if method not in self.scales:
            raise DataError(f"the {method} of all validation images was the same, so that it tells nothing")
        gaussian = self.gaussian if method == "mahalanobis" else None
        raw = energy(logits, self.task) if gaussian is None else gaussian.distance(features)
        centre, scale = self.scales[method]
        return np.asarray((raw - centre) / scale)

    def facts(self) -> dict[str, Any]:
        """What calibration.json keeps; the arrays lie beside it."""
        scales = {name: {"median": low, "to_95th_percentile": width} for name, (low, width) in self.scales.items()}
        return {"method": self.method(True), "scales": scales}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any], arrays: Mapping[str, Any] | None, task: str) -> UnusualImages:
        """Put together what `facts` gave and the arrays mean and whitening."""
        gaussian = None if arrays is None else Gaussian(np.asarray(arrays["mean"]), np.asarray(arrays["whitening"]))
        scales = {name: (float(s["median"]), float(s["to_95th_percentile"])) for name, s in facts["scales"].items()}
        return cls(gaussian, task, scales)


def _left_out(features: Values, member: npt.NDArray[np.intp]) -> Values:
    """Distances (N,) of images from a fit without their fold; the images of a group (N,) are in one fold."""
    count = int(member.max()) + 1
    if count < 2:
        raise DataError("all images belong to one patient or group, so that none can be left out")
    folds = (np.random.default_rng(0).permutation(count) % FOLDS)[member]
    distances = np.empty(len(features))
    for fold in range(min(count, FOLDS)):
        distances[folds == fold] = Gaussian.fit(features[folds != fold]).distance(features[folds == fold])
    return distances
