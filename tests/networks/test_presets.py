"""The table of presets against the published parameter counts."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai import networks
from medmamba_monai.errors import ConfigError

# Counted on the released network for 6 classes, and the paper's figures (15.2 M, 23.5 M, 48.1 M with 1000 classes).
PUBLISHED = {"tiny": 14_457_222, "small_released": 18_625_158, "base_released": 39_864_838}
PAPER_MILLIONS = {"tiny": 15.2, "small": 23.5, "base": 48.1}


def count(name: str, num_classes: int) -> int:
    with torch.device("meta"):
        network = networks.create(name, num_classes=num_classes)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", networks.PRESETS)
def test_parameters(name: str) -> None:
    assert count(name, 6) == networks.PRESETS[name].parameters
    if name in PUBLISHED:
        assert count(name, 6) == PUBLISHED[name]
    if name in PAPER_MILLIONS:
        assert count(name, 1000) / 1e6 == pytest.approx(PAPER_MILLIONS[name], abs=0.06)


@pytest.mark.parametrize("name", networks.PRESETS)
def test_factories(name: str) -> None:
    with torch.device("meta"):
        network = getattr(networks, f"medmamba_{name}")(num_classes=2, in_channels=1)
    assert networks.preset_name(network.config) == name
    assert (network.in_channels, network.num_classes) == (1, 2)


def test_unknown_preset_and_other_sizes() -> None:
    with pytest.raises(ConfigError, match="nano, tiny"):
        networks.create("huge")
    assert networks.preset_name({"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64]}) is None
