"""The linear baseline: logistic regression on thumbnails and histograms of oriented gradients.

Imports scikit-learn and scikit-image (in the extra ``dev``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import read_image

__all__ = ["features", "fit_predict"]

_THUMBNAIL, _HOG_SIDE, _CELL = 16, 128, 16
_STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)


def features(files: Sequence[Path], color: str) -> NDArray[np.float64]:
    """Return a row for each image: the thumbnail's pixels, then the HOG of the grey image.

    Args:
        files: images.
        color: "grey" or "rgb", as the bundle reads them.
    """
    from skimage.feature import hog
    from skimage.transform import resize

    rows = []
    for file in files:
        image = read_image(file, color=color).array  # (C, H, W) in [0, 1]
        grey = resize(image.mean(0), (_HOG_SIDE, _HOG_SIDE), anti_aliasing=True)
        small = resize(image, (image.shape[0], _THUMBNAIL, _THUMBNAIL), anti_aliasing=True)
        gradients = hog(grey, pixels_per_cell=(_CELL, _CELL), cells_per_block=(2, 2))
        rows.append(np.concatenate([small.ravel(), gradients]))
    return np.stack(rows)


def fit_predict(
    train: tuple[NDArray[np.float64], Sequence[int]],
    validation: tuple[NDArray[np.float64], Sequence[int]],
    test: NDArray[np.float64],
) -> tuple[NDArray[np.float64], float]:
    """Fit for several strengths of regularisation, take the best on validation, predict the test part.

    Args:
        train: features (n, d) and labels.
        validation: features and labels.
        test: features.

    Returns:
        Probabilities (n, classes) on the test part, and the strength C that was chosen.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    best, chosen, probabilities = -1.0, 0.0, np.empty(0)
    for strength in _STRENGTHS:
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=3000)
        ).fit(*train)
        score = balanced_accuracy_score(validation[1], model.predict(validation[0]))
        if score > best:
            best, chosen, probabilities = score, strength, model.predict_proba(test)
    return probabilities, chosen
