"""Class weights equal scikit-learn's balanced ones up to their mean; samplers are balanced, seeded and shared out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import DistributedSampler, DistributedWeightedRandomSampler
from sklearn.utils.class_weight import compute_class_weight

from medmamba_monai.engines import class_weights, evaluation_sampler, train_sampler
from medmamba_monai.errors import ConfigError, DataError

LABELS = [0] * 80 + [1] * 15 + [2] * 5


def test_weights() -> None:
    weights = class_weights(LABELS, 3)
    reference = compute_class_weight("balanced", classes=np.arange(3), y=np.array(LABELS))
    np.testing.assert_allclose(weights, reference / reference.mean(), rtol=1e-6)
    assert weights is not None
    assert weights.dtype == torch.float32
    assert float(weights.mean()) == pytest.approx(1.0)
    assert class_weights(LABELS, 3, enabled=False) is None
    assert class_weights(LABELS, 3, enabled="false") is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 2], "no training item of class number 1, 3"),
        ([0, 4], "from 0 to 4"),
        ([-1, 0], "from -1"),
        ([], "empty"),
    ],
)
def test_labels_that_do_not_fit(labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        class_weights(labels, 4)


def test_balanced_sampler() -> None:
    sampler = train_sampler(LABELS, balanced=True, seed=1)
    assert sampler is not None
    draws = [list(sampler) for _ in range(30)]
    counts = Counter(LABELS[index] for draw in draws for index in draw)
    assert all(len(draw) == 100 for draw in draws)
    assert all(abs(count / 3000 - 1 / 3) < 0.05 for count in counts.values())
    assert draws[0] != draws[1]
    again = train_sampler(LABELS, balanced=True, seed=1)
    assert again is not None
    assert [list(again) for _ in range(2)] == draws[:2]


def test_one_process_needs_no_other_sampler() -> None:
    assert train_sampler(LABELS) is None
    assert evaluation_sampler(LABELS) is None


def test_several_processes_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    indices: list[int] = []
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda *_, rank=rank: rank)
        sampler = evaluation_sampler(LABELS[:7])
        assert isinstance(sampler, DistributedSampler)
        indices += list(sampler)
        assert isinstance(train_sampler(LABELS), DistributedSampler)
        balanced = train_sampler(LABELS, balanced=True)
        assert isinstance(balanced, DistributedWeightedRandomSampler)
        assert len(list(balanced)) == 50
    assert sorted(indices) == list(range(7))


def test_several_classes_an_image_weigh_positive_answers() -> None:
    labels = (np.random.default_rng(0).random((50, 3)) < [0.5, 0.2, 0.1]).astype(int)
    labels[0] = 1
    expected = [compute_class_weight("balanced", classes=np.arange(2), y=column) for column in labels.T]
    weights = class_weights(labels.tolist(), 3)
    np.testing.assert_allclose(weights, [positive / negative for negative, positive in expected], rtol=1e-6)
    assert class_weights(labels.tolist(), 3, enabled=False) is None


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([[1, 0, 0], [0, 1, 0]], "no training item or every one has class number 2"),
        ([[1, 1, 0], [1, 0, 1]], "class number 0"),
        ([[1, 0], [0, 1]], r"labels of shape \(2, 2\), 3 classes"),
    ],
)
def test_several_classes_that_cannot_be_weighed(labels: list[list[int]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        class_weights(labels, 3)


def test_several_classes_cannot_be_drawn_equally_often() -> None:
    with pytest.raises(ConfigError, match="balanced_sampling needs one class an image.*--class_weights true"):
        train_sampler([[1, 0], [1, 1]], balanced=True)
    assert train_sampler([[1, 0], [1, 1]]) is None
