"""The measures on a network whose evidence is known, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medmamba_monai.errors import ConfigError
from medmamba_monai.explain.faithfulness import (
    deletion_insertion,
    peak_inside,
    rank_correlation,
    with_random_weights,
)

from .conftest import small


class _Spot(nn.Module):
    """Class 1 as surely as the pixels of one patch are bright."""

    def forward(self, x: Tensor) -> Tensor:
        value = 6 * x[:, 0, 4:8, 8:12].mean((1, 2)) - 3
        return torch.stack([-value, value], 1)


def images_and_maps() -> tuple[Tensor, Tensor]:
    images = torch.zeros(2, 1, 16, 16)
    images[:, 0, 4:8, 8:12] = 1
    maps = images.clone()
    maps[1] *= -1
    return images, maps


def test_a_map_that_knows_goes_first_and_its_opposite_last() -> None:
    """16 patches, one of them the evidence: the curves are steps at the first and at the last patch."""
    images, maps = images_and_maps()
    found = deletion_insertion(_Spot(), images, maps, torch.tensor([1, 1]), patch=4, steps=16)
    high, low = float(torch.sigmoid(torch.tensor(6.0))), float(torch.sigmoid(torch.tensor(2 * (6 / 16 - 3))))
    area = (0.5 * (high + low) + 15 * low) / 16
    assert found.deletion_curve[0].tolist() == pytest.approx([high] + 16 * [low])
    assert found.insertion_curve[0].tolist() == pytest.approx([low] + 16 * [high])
    assert found.deletion_curve[1].tolist() == pytest.approx(16 * [high] + [low])
    assert float(found.deletion[0]) == pytest.approx(area)
    assert found.score[0] > 0.8
    torch.testing.assert_close(found.score[1], -found.score[0])


@pytest.mark.parametrize("options", [{"steps": 0}, {"patch": 0}, {"patch": 17}])
def test_what_cannot_be_measured_is_refused(options: dict[str, int]) -> None:
    images, maps = images_and_maps()
    with pytest.raises(ConfigError):
        deletion_insertion(_Spot(), images, maps, torch.tensor([1, 1]), **options)
    with pytest.raises(ConfigError):
        deletion_insertion(_Spot(), images, maps[:1], torch.tensor([1, 1]))


def test_odd_sizes_and_volumes_are_ranked_whole() -> None:
    images = torch.rand(1, 1, 9, 10, 11)
    network = nn.Sequential(nn.Flatten(), nn.Linear(990, 2))
    found = deletion_insertion(network, images, images, torch.tensor([0]), patch=4, steps=3)
    whole = network(images).softmax(1)[0, 0]
    blank = network(images.mean().expand_as(images)).softmax(1)[0, 0]
    torch.testing.assert_close(found.deletion_curve[0, [0, -1]], torch.stack([whole, blank]).detach())


def test_pointing_needs_a_peak_in_the_mask() -> None:
    images, maps = images_and_maps()
    assert peak_inside(maps, images > 0).tolist() == [True, False]
    assert peak_inside(torch.ones_like(maps), torch.ones_like(maps, dtype=torch.bool)).tolist() == [False, False]


def test_rank_correlation_is_spearmans() -> None:
    maps = torch.rand(2, 1, 6, 6)
    found = rank_correlation(maps, torch.stack([maps[0].exp(), torch.ones(1, 6, 6)]))
    assert found[0] == 1
    assert np.isnan(float(found[1]))


def test_random_weights_are_others_of_the_same_sizes() -> None:
    network = small().double()
    fresh = with_random_weights(network, 5)
    assert {k: v.shape for k, v in fresh.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}
    assert not torch.equal(
        fresh.stages[2].blocks[0].mixer.in_proj.weight, network.stages[2].blocks[0].mixer.in_proj.weight
    )
    assert fresh.head.weight.dtype == torch.float64
    assert torch.equal(fresh.head.weight, with_random_weights(network, 5).head.weight)
