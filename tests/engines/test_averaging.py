"""Averages of views and networks, against a loop that turns images by NumPy and adds probabilities."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from medmamba_monai.engines import AveragingInferer
from medmamba_monai.engines.averaging import views_of
from medmamba_monai.errors import ConfigError


class Place(nn.Module):
    """Weighs every pixel by where it is, so that every flip changes the logits."""

    def __init__(self, shape: Sequence[int], classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        weights = torch.randn(classes, *shape, generator=torch.Generator().manual_seed(seed))
        self.head = nn.Linear(weights[0].numel(), classes, bias=False)
        self.head.weight.data = weights.flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def naive(batch: torch.Tensor, networks: Sequence[nn.Module], axes: Sequence[int], task: str) -> np.ndarray:
    """Probabilities (B, C): each image by itself, turned by NumPy, its probabilities added up."""
    rows = []
    for image in batch.numpy():
        total, count = np.zeros(3), 0
        for network, turned in itertools.product(networks, itertools.product([False, True], repeat=len(axes))):
            view = image
            for axis, wanted in zip(axes, turned, strict=True):
                view = np.flip(view, 1 + axis) if wanted else view
            z = network(torch.from_numpy(view.copy())[None])[0].detach().double().numpy()
            total += np.exp(z) / np.exp(z).sum() if task == "multiclass" else 1 / (1 + np.exp(-z))
            count += 1
        rows.append(total / count)
    return np.stack(rows)


def probabilities(logits: torch.Tensor, task: str) -> np.ndarray:
    return (logits.softmax(-1) if task == "multiclass" else logits.sigmoid()).detach().double().numpy()


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize(("shape", "axes"), [((1, 4, 5), [1]), ((3, 4, 5), [0, 1]), ((1, 3, 4, 2), [0, 1, 2])])
@pytest.mark.parametrize("members", [0, 2])
def test_it_is_the_mean_of_all_networks_over_all_views(
    task: str, shape: tuple[int, ...], axes: list[int], members: int
) -> None:
    networks = [Place(shape, seed=seed) for seed in range(1 + members)]
    batch = images(4, *shape)
    inferer = AveragingInferer(task, [[axis] for axis in axes], networks[1:])
    found = probabilities(inferer(batch, networks[0]), task)
    np.testing.assert_allclose(found, naive(batch, networks, axes, task), atol=1e-6)
    wrong = AveragingInferer(task, [[axis] for axis in axes[1:]], networks[1:])  # a view too few is seen
    assert np.abs(probabilities(wrong(batch, networks[0]), task) - found).max() > 1e-3


def test_a_network_that_flips_do_not_matter_to_answers_as_before() -> None:
    def symmetric(x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))

    batch = images(5, 3, 6, 4)
    found = AveragingInferer("multiclass", [[0], [1]])(batch, symmetric)
    torch.testing.assert_close(found, symmetric(batch).log_softmax(-1))
    found = AveragingInferer("multilabel", [[0], [1]])(batch, symmetric)
    torch.testing.assert_close(found, symmetric(batch))


def test_with_nothing_to_average_the_output_is_the_networks_own() -> None:
    batch, network = images(2, 1, 4, 5), Place((1, 4, 5))
    inferer = AveragingInferer()
    assert not inferer.averages
    assert torch.equal(inferer(batch, network), network(batch))
    marker = object()
    assert inferer(batch, lambda x, extra, *, named: (extra, named), 1, named=marker) == (1, marker)


def test_the_engines_network_sees_the_image_as_it_is_last() -> None:
    asked: list[tuple[str, torch.Tensor]] = []

    class Noted(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked.append((self.name, x))
            return x.flatten(1)

    batch = images(2, 1, 2, 3)
    AveragingInferer("multiclass", [[0], [1]], [Noted("member")])(batch, Noted("main"))
    assert [name for name, _ in asked] == ["member"] * 4 + ["main"] * 4
    assert torch.equal(asked[-1][1], batch)


def test_views_are_all_combinations_once() -> None:
    assert views_of([[1]]) == [(1,), ()]
    assert set(views_of([[0], [1], [2]])) == {(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}
    assert views_of([[0, 1]]) == [(0, 1), ()]  # one flip that turns both together
    assert set(views_of([[0], [0, 1]])) == {(), (0,), (0, 1), (1,)}
    assert views_of([[0], [0]]) == [(0,), ()]


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_sure_answers_neither_overflow_nor_vanish(task: str) -> None:
    sure = torch.tensor([[400.0, -400.0, 0.0]])
    found = AveragingInferer(task, members=[nn.Identity()])(sure, nn.Identity())
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(found, sure - (400 if task == "multiclass" else 0))


def test_autocast_rounds_logits_but_not_the_mean() -> None:
    batch, network, member = images(3, 1, 4, 5), Place((1, 4, 5)), Place((1, 4, 5), seed=1)
    inferer = AveragingInferer("multiclass", [[1]], [member])
    with torch.autocast("cpu", torch.bfloat16):
        found = inferer(batch, network)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.exp().sum(-1).detach().numpy(), 1, atol=1e-6)
    np.testing.assert_allclose(
        probabilities(found, "multiclass"), naive(batch, [network, member], [1], "multiclass"), atol=0.05
    )


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="multilabel"):
        AveragingInferer("regression")
