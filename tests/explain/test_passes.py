"""A network that was looked at is as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medmamba_monai.errors import ConfigError
from medmamba_monai.explain.passes import logits_of, require_medmamba, studied

from .conftest import Convolutional, pictures, small


def test_modes_gradients_and_requirements_come_back_also_after_an_error() -> None:
    network = small().train()
    network.stages[0].eval()
    weight = network.head.weight
    weight.grad = torch.ones_like(weight)
    network.head.bias.requires_grad_(False)
    modes = [module.training for module in network.modules()]
    images = pictures(1, 32, 32)
    with pytest.raises(RuntimeError, match="planted"), torch.inference_mode(), studied(network, images) as leaf:
        assert leaf.requires_grad
        assert not any(module.training for module in network.modules())
        torch.autograd.grad(network(leaf).sum(), leaf)
        raise RuntimeError("planted")
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert weight.requires_grad
    assert not network.head.bias.requires_grad


def test_images_take_the_type_of_the_weights() -> None:
    with studied(small().double(), pictures(1, 32, 32)) as leaf:
        assert leaf.dtype == torch.float64


def test_what_is_no_classifier_is_refused() -> None:
    with pytest.raises(ConfigError, match="no images"):
        logits_of(small(), pictures(0, 32, 32))
    with pytest.raises(ConfigError, match="not \\(B, classes\\)"):
        logits_of(nn.Conv2d(1, 2, 3), pictures(1, 32, 32))
    with pytest.raises(ConfigError, match="Convolutional"):
        require_medmamba(Convolutional(), "x")
