"""The folded network equals the one it was made from, and stays scriptable and exportable."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medmamba_monai.errors import ConfigError
from medmamba_monai.networks import MedMamba
from medmamba_monai.networks.inference import FoldedConvBranch

SMALL: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64), "num_classes": 3}


def trained(**options: Any) -> MedMamba:
    """A network whose batch norms have statistics, scales and shifts of their own."""
    torch.manual_seed(0)
    network = MedMamba(**{**SMALL, **options})
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.weight, 1, 0.3)
            torch.nn.init.normal_(module.bias)
    return network.eval()


@pytest.mark.parametrize("options", [{}, {"spatial_dims": 3, "in_channels": 1}], ids=["2d", "3d"])
def test_outputs_are_equal(options: dict[str, Any]) -> None:
    network = trained(**options)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    image = torch.rand((2, network.in_channels) + (36,) * network.spatial_dims)
    fast = network.optimize_for_inference()
    pairs = zip(fast.forward_features(image), network.forward_features(image), strict=True)
    assert all((a - b).abs().max() <= 1e-4 * b.abs().max() for a, b in pairs)
    assert (fast(image) - network(image)).abs().max() <= 1e-4 * network(image).abs().max()
    assert not any(isinstance(m, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d) for m in fast.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(p.requires_grad for p in fast.parameters())


def test_a_norm_left_out_is_seen() -> None:
    network = trained()
    fast = network.optimize_for_inference()
    branch = fast.stages[0].blocks[0].conv_branch
    assert isinstance(branch, FoldedConvBranch)
    branch.shift.zero_()
    image = torch.rand(2, 3, 36, 36)
    a, b = fast.forward_features(image)[0], network.forward_features(image)[0]
    assert (a - b).abs().max() > 1e-2 * b.abs().max()


def test_scripts_and_exports() -> None:
    fast = trained().optimize_for_inference()
    image = torch.rand(2, 3, 32, 40)
    expected = fast(image)
    assert torch.allclose(torch.jit.script(fast)(image), expected, rtol=1e-4, atol=1e-5)
    program = torch.export.export(fast, (image,))
    assert torch.allclose(program.module()(image), expected, rtol=1e-4, atol=1e-5)


def test_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="training mode"):
        MedMamba(**SMALL).optimize_for_inference()
