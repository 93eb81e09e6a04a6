"""Tables of predictions: two classes, many, several labels an image, a class without images, hostile names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from medmamba_monai.figures import Heading
from medmamba_monai.metrics import PredictionTable

MANY = [f"organ {letter}" for letter in "abcdefghijk"]
HOSTILE = [
    "_cyst $\\alpha$ & <script>alert(1)</script>",
    "immature granulocytes(myelocytes, metamyelocytes)",
    "naïve 腫瘍",
]


def make_table(
    names: Sequence[str] = ("benign", "malignant"),
    count: int = 90,
    task: str = "multiclass",
    empty: Sequence[int] = (),
    grouped: bool = True,
) -> PredictionTable:
    """Predictions that are mostly right; values are rounded, so that there are ties."""
    rng = np.random.default_rng(len(names) + count)
    classes = len(names)
    if task == "multilabel":
        labels = (rng.random((count, classes)) < 0.3).astype(np.int64)
        labels[:, list(empty)] = 0
        values = 1 / (1 + np.exp(-(rng.normal(size=labels.shape) + 2 * labels - 1)))
    else:
        labels = rng.choice([number for number in range(classes) if number not in empty], count)
        logits = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
        values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    files = [f"part/{index:03d}.png" for index in range(count)]
    groups = [f"p{index // 3}" for index in range(count)] if grouped else None
    return PredictionTable(list(names), files, groups, labels, np.round(values, 2), task)


@pytest.fixture
def table() -> Callable[..., PredictionTable]:
    return make_table


@pytest.fixture
def heading() -> Heading:
    return Heading("Ultrasound", "test", 90)
