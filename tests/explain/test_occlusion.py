"""Occlusion against a naive loop, and against a network whose evidence lies in a known place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medmamba_monai.errors import ConfigError
from medmamba_monai.explain.occlusion import default_patch, occlusion
from medmamba_monai.explain.score import log_odds

from .conftest import pictures, small


class _Corner(nn.Module):
    """The logit of class 1 is the mean of the last rows and columns."""

    def forward(self, x: Tensor) -> Tensor:
        value = x[:, 0, 20:, 20:].mean((1, 2))
        return torch.stack([torch.zeros_like(value), 10 * value], 1)


def test_agrees_with_a_naive_loop() -> None:
    network, image, target = small(), pictures(1, 32, 38), torch.tensor([2])
    sides, starts = (8, 10), ([0, 4, 8, 12, 16, 20, 24], [0, 5, 10, 15, 20, 25, 28])
    rows, columns = torch.arange(8) - 3.5, torch.arange(10) - 4.5
    bell = torch.exp(-0.5 * ((rows[:, None] / 2) ** 2 + (columns / 2.5) ** 2))
    bell = bell / bell.max()
    total, weight = torch.zeros(32, 38), torch.zeros(32, 38)
    with torch.no_grad():
        whole = log_odds(network(image), target)
        for top in starts[0]:
            for left in starts[1]:
                covered, place = image.clone(), (slice(top, top + 8), slice(left, left + 10))
                covered[0, 0][place] = (1 - bell) * covered[0, 0][place] + bell * image.mean()
                total[place] += bell * (whole - log_odds(network(covered), target))
                weight[place] += bell
    found = occlusion(network, image, target, patch=sides, batch_size=7)
    torch.testing.assert_close(found[0, 0], total / weight, rtol=1e-4, atol=1e-5)


def test_points_to_the_evidence_and_says_its_sign() -> None:
    images = torch.zeros(2, 1, 32, 32)
    images[0, 0, 22:30, 22:30] = 1
    images[1, 0, 22:30, 22:30] = -1
    found = occlusion(_Corner(), images, torch.tensor([1, 1]))
    assert found[0, 0, 22:30, 22:30].mean() > 0 > found[1, 0, 22:30, 22:30].mean()
    assert found[:, 0, :16, :16].abs().max() < 0.1 * found.abs().max()


def test_a_batch_gives_what_its_images_give() -> None:
    network, images = small(spatial_dims=3), pictures(2, 32, 32, 32)
    targets = torch.tensor([0, 2])
    options = {"patch": 16, "overlap": 0.0}
    together = occlusion(network, images, targets, batch_size=5, **options)  # type: ignore[arg-type]
    alone = [occlusion(network, images[i : i + 1], targets[i : i + 1], **options) for i in (0, 1)]  # type: ignore[arg-type]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"patch": 33}, {"patch": [8]}, {"overlap": 1.0}, {"batch_size": 0}])
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        occlusion(small(), pictures(1, 32, 32), torch.tensor([0]), **options)  # type: ignore[arg-type]


def test_patches_are_an_eighth_of_a_picture() -> None:
    assert default_patch([64, 16]) == [8, 4]
