"""Networks and what they were exported to. MedMamba's graphs take long to trace, so a small one stands in for most."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from medmamba_monai.networks import MedMamba, ModelInfo
from medmamba_monai.networks.export import Written, export_network
from medmamba_monai.networks.exported import FORMATS


class Export(NamedTuple):
    """A network, what is known of it, and its files by format."""

    network: nn.Module
    info: ModelInfo
    files: dict[str, Path]
    written: list[Written]


class Small(nn.Module):
    """A classifier of one-channel pictures of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(2).mean(2))


def tiny(spatial_dims: int = 2, **options: Any) -> MedMamba:
    """One block a stage; batch norms have statistics of their own, so that a wrong fold would show."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64), "d_state": 4}
    network = MedMamba(**{"spatial_dims": spatial_dims, "in_channels": 1, "num_classes": 3, **sizes, **options}).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
    return network


def describe(network: nn.Module, size: list[int]) -> ModelInfo:
    """What training would write beside the weights."""
    config = getattr(network, "config", {})
    return ModelInfo(["naïve", "no", "yes"], 1, len(size), size, config, "d" * 64, {"preset": None})


def export(network: nn.Module, size: list[int], folder: Path, *formats: str) -> Export:
    """Export in the formats given."""
    info = describe(network, size)
    files = {name: folder / f"net{FORMATS[name]}" for name in formats}
    return Export(network, info, files, list(export_network(network, info, files)))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The small network in all formats."""
    torch.manual_seed(0)
    return export(Small().eval(), [32, 40], tmp_path_factory.mktemp("exported"), *FORMATS)
