"""Small layers against their definitions written out."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai.networks.layers import PatchEmbedding, PatchMerging, interleave


def test_interleave_is_a_channel_shuffle_in_two_groups() -> None:
    left, right = torch.rand(2, 3, 3, 4), torch.rand(2, 3, 3, 4)
    both = torch.cat([left, right], -1)
    shuffled = both.reshape(2, 3, 3, 2, 4).transpose(-1, -2).reshape(2, 3, 3, 8)
    assert torch.equal(interleave(left, right), shuffled)


@pytest.mark.parametrize("rank", [2, 3])
def test_merging_gathers_neighbours_with_the_first_axis_fastest(rank: int) -> None:
    merge = PatchMerging(rank, 2, pad=False)
    merge.norm, merge.reduction = torch.nn.Identity(), torch.nn.Identity()
    x = torch.rand((1,) + (4,) * rank + (2,))
    y = merge(x)
    parts = []
    for number in range(2**rank):
        starts = [(number >> axis) & 1 for axis in range(rank)]
        parts.append(x[(slice(None), *(slice(start, None, 2) for start in starts))])
    assert torch.equal(y, torch.cat(parts, -1))


def test_merging_pads_or_crops_odd_maps() -> None:
    x = torch.rand(1, 5, 4, 2)
    assert PatchMerging(2, 2, pad=True)(x).shape == (1, 3, 2, 4)
    crop = PatchMerging(2, 2, pad=False)
    assert torch.equal(crop(x), crop(x[:, :4]))


def test_embedding_pads_at_the_end() -> None:
    embed = PatchEmbedding(2, 1, 4, pad=True)
    x = torch.rand(1, 1, 33, 36)
    assert torch.equal(embed(x), embed(torch.nn.functional.pad(x, (0, 0, 0, 3))))
