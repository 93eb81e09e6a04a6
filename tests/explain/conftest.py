"""Networks and images that the tests of explanations share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medmamba_monai import MedMamba


def small(spatial_dims: int = 2, num_classes: int = 3, seed: int = 0, **options: object) -> MedMamba:
    """A MedMamba of four blocks in evaluation mode, its batch norms away from the identity."""
    torch.manual_seed(seed)
    network = MedMamba(
        spatial_dims,
        1,
        num_classes,
        depths=(1, 1, 1, 1),
        dims=(8, 16, 32, 64),
        d_state=4,
        **options,  # type: ignore[arg-type]
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.2)
    return network.eval()


def pictures(count: int, *size: int, seed: int = 0) -> Tensor:
    """Random images (count, 1, *size)."""
    return torch.randn(count, 1, *size, generator=torch.Generator().manual_seed(seed))


class Convolutional(nn.Module):
    """A channels-first network whose last map is ``features``."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1))
        self.head = nn.Linear(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.features(x)).mean((2, 3)))
