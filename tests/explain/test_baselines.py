"""Maps that know nothing of the network."""

from __future__ import annotations

import torch

from medmamba_monai.explain.baselines import centre_maps, contrast_maps, random_maps

from .conftest import pictures


def test_random_maps_come_from_the_seed_alone() -> None:
    images = pictures(2, 32, 40)
    first = random_maps(images, 0)
    assert first.shape == (2, 1, 32, 40)
    assert torch.equal(first, random_maps(torch.zeros_like(images), 0))
    assert not torch.equal(first, random_maps(images, 1))


def test_centre_maps_peak_in_the_middle() -> None:
    found = centre_maps(pictures(2, 33, 41, 35))
    assert found.shape == (2, 1, 33, 41, 35)
    assert found[1, 0].argmax() == (16 * 41 + 20) * 35 + 17


def test_contrast_maps_are_the_distance_from_the_mean() -> None:
    image = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])
    assert contrast_maps(image).tolist() == [[[[0.5, 0.5]]]]
