"""Stains are scaled as an independent colour deconvolution scales them, and only when and as drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import hed2rgb, rgb2hed

from medmamba_monai.data.stain import RandStainJitterd, scale_stains
from medmamba_monai.errors import ConfigError, DataError

FACTORS = torch.tensor([1.3, 0.8, 1.1])


def slide(seed: int = 0) -> torch.Tensor:
    """(3, 20, 24) of mixed haematoxylin and eosin, in [0, 1] and nowhere black."""
    amounts = np.random.default_rng(seed).uniform(0, 0.1, (20, 24, 3)) * [1, 1, 0]
    return torch.from_numpy(hed2rgb(amounts)).permute(2, 0, 1).float()


def test_equals_colour_deconvolution_by_scikit_image() -> None:
    image = slide()
    stains = rgb2hed(image.permute(1, 2, 0).double().numpy())
    # scikit-image cuts negative amounts off, which the rounding of float32 makes of none
    expected = hed2rgb(stains * FACTORS.numpy())
    found = scale_stains(image, FACTORS).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.abs(found - hed2rgb(stains)).max() > 0.05


@pytest.mark.parametrize("stain", [0, 1])
def test_one_stain_changes_alone(stain: int) -> None:
    vector = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])[stain]
    image = torch.exp(-0.6 * vector)[:, None, None]
    factors = torch.ones(3)
    factors[stain] = 1.5
    torch.testing.assert_close(scale_stains(image, factors), torch.exp(-0.9 * vector)[:, None, None])
    factors = torch.full((3,), 1.5)
    factors[stain] = 1
    torch.testing.assert_close(scale_stains(image, factors), image)


def test_white_stays_white_and_black_is_finite() -> None:
    image = torch.stack([torch.ones(3, 4), torch.zeros(3, 4)], dim=-1)
    changed = scale_stains(image, FACTORS)
    assert torch.equal(changed[..., 0], image[..., 0])
    assert torch.isfinite(changed).all()
    assert changed[..., 1].max() < 0.05


def test_factors_of_one_change_nothing() -> None:
    torch.testing.assert_close(scale_stains(slide(), torch.ones(3)), slide())


def test_normalised_pictures_are_changed_as_plain_ones() -> None:
    plain = RandStainJitterd("image", prob=1.0).set_random_state(5)
    normalised = RandStainJitterd("image", prob=1.0, subtrahend=0.5, divisor=0.25).set_random_state(5)
    expected = plain({"image": slide()})["image"]
    found = normalised({"image": (slide() - 0.5) / 0.25})["image"]
    torch.testing.assert_close(found, (expected - 0.5) / 0.25)
    assert not torch.allclose(expected, slide(), atol=0.01)


def test_draws_follow_the_seed_the_probability_and_the_strength() -> None:
    jitter = RandStainJitterd("image", prob=0.5, strength=0.2).set_random_state(0)
    images = [jitter({"image": slide(), "label": 1}) for _ in range(200)]
    changed = [item for item in images if not torch.equal(item["image"], slide())]
    assert 70 < len(changed) < 130
    assert all(item["label"] == 1 for item in images)
    again = RandStainJitterd("image", prob=0.5, strength=0.2).set_random_state(0)
    assert all(torch.equal(item["image"], again({"image": slide()})["image"]) for item in images[:5])
    drawn = []
    for _ in range(200):
        jitter.randomize()
        drawn.append(jitter.factors)
    assert 0.8 <= np.min(drawn) < 0.85 < 1.15 < np.max(drawn) <= 1.2


def test_what_cannot_be_stained_is_refused() -> None:
    with pytest.raises(DataError, match="1 channels"):
        RandStainJitterd("image", prob=1.0)({"image": torch.rand(1, 8, 8)})
    for options in ({"strength": 1.0}, {"strength": -0.1}, {"divisor": 0.0}):
        with pytest.raises(ConfigError, match="RandStainJitterd"):
            RandStainJitterd("image", **options)
