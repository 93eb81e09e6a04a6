"""Hooks see the features and logits of a forward pass and leave the network as it was."""

from __future__ import annotations

import torch
from torch import nn

from medmamba_monai.networks import MedMamba
from medmamba_monai.networks.features import FeatureTap


def smallest() -> MedMamba:
    return MedMamba(num_classes=3, depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), d_state=4).eval()


def test_features_are_what_the_head_gets() -> None:
    network, images = smallest(), torch.rand(2, 3, 40, 32)
    tap = FeatureTap(network)
    with torch.no_grad():
        expected = network(images)
        logits, features = tap.take()
        pooled = network.forward_features(images)[-1].flatten(2).mean(2)
    assert logits is not None
    assert features is not None
    assert torch.equal(logits, expected)
    assert torch.allclose(features, pooled, atol=1e-6)
    assert tap.take() == (None, None)


def test_several_passes_of_a_batch_count_as_their_mean() -> None:
    network, images = smallest(), torch.rand(2, 3, 32, 32)
    tap = FeatureTap(network)
    with torch.no_grad():
        both = [network(images), network(images.flip(3))]
    logits, _ = tap.take()
    assert logits is not None
    assert torch.allclose(logits, torch.stack(both).mean(0))
    with torch.no_grad():
        both = [network(images), network(images.flip(3))]
    logits, _ = tap.take(last=True)
    assert logits is not None
    assert torch.equal(logits, both[1])


def test_closing_removes_the_hooks() -> None:
    network = smallest()
    tap = FeatureTap(network)
    tap.close()
    network(torch.rand(1, 3, 32, 32))
    assert tap.take() == (None, None)
    assert not network._forward_hooks
    assert not network.head._forward_pre_hooks


class Other(nn.Module):
    """A network of another make that shows its last map."""

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_features(x).mean((2, 3))


def test_other_networks_are_asked_again_or_have_none() -> None:
    images = torch.rand(2, 3, 8, 8)
    tap = FeatureTap(other := Other())
    other(images)
    logits, features = tap.take()
    assert logits is not None
    assert features is not None
    assert torch.allclose(features, images.mean((2, 3)) * 2)
    tap = FeatureTap(plain := nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    plain(images)
    logits, features = tap.take()
    assert logits is not None
    assert features is None
