"""Explanations of a trained network: they point to what was planted, and depend on what was learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medmamba_monai import MedMamba
from medmamba_monai.data.phantom_lesion import CLASS_NAMES, planted_lesion
from medmamba_monai.explain import (
    deletion_insertion,
    explain,
    peak_inside,
    rank_correlation,
    with_random_weights,
)
from medmamba_monai.explain.baselines import centre_maps, contrast_maps, random_maps
from medmamba_monai.networks import create

pytestmark = pytest.mark.slow


def planted(seeds: range, names: tuple[str, ...] = CLASS_NAMES) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 1, 64, 64), masks and labels."""
    drawn = [planted_lesion(name, seed) for seed in seeds for name in names]
    images = (torch.from_numpy(np.stack([each.image for each in drawn]))[:, None] - 0.5) / 0.2
    masks = torch.from_numpy(np.stack([each.mask for each in drawn]))[:, None]
    return images, masks, torch.tensor([CLASS_NAMES.index(name) for _ in seeds for name in names])


@pytest.fixture(scope="module")
def trained() -> MedMamba:
    """A nano network that tells planted lesions from clear tissue."""
    torch.manual_seed(0)
    images, _, labels = planted(range(200))
    network = create("nano", num_classes=2, in_channels=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    epochs = 8
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * 13)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(32):
            axes = [axis for axis in (2, 3) if torch.rand(()) < 0.5]
            loss = F.cross_entropy(network(images[chosen].flip(axes)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    network.eval()
    unseen, _, truth = planted(range(5000, 5030))
    with torch.no_grad():
        assert float((network(unseen).argmax(1) == truth).float().mean()) > 0.95
    return network


@pytest.fixture(scope="module")
def lesions() -> tuple[Tensor, Tensor, Tensor]:
    return planted(range(12000, 12024), ("lesion",))


def test_the_default_map_peaks_in_the_lesion_and_beats_what_knows_nothing(
    trained: MedMamba, lesions: tuple[Tensor, Tensor, Tensor]
) -> None:
    images, masks, targets = lesions
    maps = explain(trained, images, "scan", targets).maps
    assert float(peak_inside(maps, masks).float().mean()) > 0.85
    score = deletion_insertion(trained, images, maps, targets).score
    for other in (random_maps(images, 0), centre_maps(images), contrast_maps(images)):
        assert float(peak_inside(other, masks).float().mean()) < 0.85
        assert float((score - deletion_insertion(trained, images, other, targets).score).mean()) > 0


@pytest.mark.parametrize(("method", "options"), [("gradcam++", {"layer": 0}), ("occlusion", {"overlap": 0.0})])
def test_the_other_maps_beat_random_ones(
    method: str, options: dict[str, float], trained: MedMamba, lesions: tuple[Tensor, Tensor, Tensor]
) -> None:
    images, masks, targets = (part[:8] for part in lesions)
    maps = explain(trained, images, method, targets, **options).maps
    assert float(peak_inside(maps, masks).float().mean()) > 0.5
    chance = deletion_insertion(trained, images, random_maps(images, 0), targets).score
    assert float((deletion_insertion(trained, images, maps, targets).score - chance).mean()) > 0.2


@pytest.mark.parametrize("method", ["scan", "gradcam", "gradcam++"])
def test_maps_of_random_weights_are_others(
    method: str, trained: MedMamba, lesions: tuple[Tensor, Tensor, Tensor]
) -> None:
    images, masks, targets = lesions
    maps = explain(trained, images, method, targets).maps
    untrained = explain(with_random_weights(trained, 1), images, method, targets).maps
    together = rank_correlation(maps, untrained)
    assert float(together[torch.isfinite(together)].abs().mean()) < 0.5
    assert float(peak_inside(untrained, masks).float().mean()) < 0.5
