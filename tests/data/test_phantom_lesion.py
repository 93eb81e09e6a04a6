"""Planted lesions: the mask covers the dark spot, and neither place nor contrast gives it away."""

from __future__ import annotations

import numpy as np
import pytest

from medmamba_monai.data.phantom_lesion import planted_lesion


@pytest.mark.parametrize(("spatial_dims", "size"), [(2, 48), (3, 24)])
def test_the_lesion_is_the_dark_spot_under_its_mask(spatial_dims: int, size: int) -> None:
    for seed in range(12):
        image, mask = planted_lesion("lesion", seed, size, spatial_dims)
        assert image.shape == mask.shape == (size,) * spatial_dims
        assert mask[np.unravel_index(image.argmin(), image.shape)]
        assert image[mask].mean() < image[~mask].mean()
        clear = planted_lesion("clear", seed, size, spatial_dims)
        assert not clear.mask.any()
        assert clear.image.min() > 0.35
    again = planted_lesion("lesion", 3, size, spatial_dims)
    assert np.array_equal(again.image, planted_lesion("lesion", 3, size, spatial_dims).image)


def test_place_does_not_give_the_lesion_away() -> None:
    masks = np.mean([planted_lesion("lesion", seed, 32).mask for seed in range(300)], axis=0)
    assert masks.max() < 0.15  # no pixel lies in many lesions
