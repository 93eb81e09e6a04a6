"""Weight decay reaches matrices only, and every parameter is trained once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medmamba_monai.engines import parameter_groups
from medmamba_monai.errors import ConfigError


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.zeros(4, 2))
        self.D = nn.Parameter(torch.ones(2, 4))
        self.projection = nn.Parameter(torch.zeros(3, 2, 2))
        self.linear = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.batch_norm = nn.BatchNorm2d(2)
        self.tied = self.linear
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)


def test_who_decays() -> None:
    mixer = Mixer()
    names = {id(parameter): name for name, parameter in mixer.named_parameters()}
    decayed, undecayed = parameter_groups(mixer, 0.1)
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)
    assert sorted(names[id(parameter)] for parameter in decayed["params"]) == ["linear.weight", "projection"]
    found = [id(parameter) for group in (decayed, undecayed) for parameter in group["params"]]
    trainable = [id(parameter) for parameter in mixer.parameters() if parameter.requires_grad]
    assert sorted(found) == sorted(trainable)
    torch.optim.AdamW(parameter_groups(mixer, 0.1), lr=0.1)


def test_medmamba_itself() -> None:
    from medmamba_monai.networks import medmamba_nano

    network = medmamba_nano(num_classes=2)
    decayed, undecayed = parameter_groups(network, 0.1)
    kept = {id(parameter) for parameter in undecayed["params"]}
    special = [
        parameter
        for name, parameter in network.named_parameters()
        if name.rsplit(".", 1)[-1] in ("A_log", "D") or parameter.ndim < 2
    ]
    assert len([name for name, _ in network.named_parameters() if name.endswith("A_log")]) > 0
    assert {id(parameter) for parameter in special} == kept
    assert len(decayed["params"]) + len(undecayed["params"]) == len(list(network.parameters()))


def test_frozen_parts_and_nonsense() -> None:
    linear = nn.Linear(2, 2)
    linear.bias.requires_grad = False
    assert len(parameter_groups(linear)) == 1
    linear.weight.requires_grad = False
    with pytest.raises(ConfigError, match="no parameter that requires a gradient"):
        parameter_groups(linear)
    with pytest.raises(ConfigError, match="-1 is negative"):
        parameter_groups(nn.Linear(1, 1), -1)
