"""Planted errors under which no benchmark may print or write a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medmamba_monai.benchmarks import released_flow
from medmamba_monai.networks import MedMamba
from medmamba_monai.ops.selective_scan.contract import DirectionalInputs, ScanBackend


def spoil_backward(module: ScanBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one of a backend's gradients, that of B, wrong by a ten thousandth."""
    backward = module.directional_backward

    def wrong(*arguments: Any) -> tuple[torch.Tensor, ...]:
        du, ddt, dA, dB, *rest = backward(*arguments)
        return (du, ddt, dA, dB * 1.0001, *rest)

    monkeypatch.setattr(module, "directional_backward", wrong)


def spoil_released_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the gradients of the baseline wrong by a thousandth, its output right."""
    flow = released_flow.directional_scan

    def wrong(inputs: DirectionalInputs) -> torch.Tensor:
        y = flow(inputs)
        return y.detach() + 1.001 * (y - y.detach())

    monkeypatch.setattr(released_flow, "directional_scan", wrong)


def spoil_optimized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the last map of networks from ``optimize_for_inference`` wrong by a thousandth."""
    optimize = MedMamba.optimize_for_inference

    def wrong(network: MedMamba) -> MedMamba:
        optimized = optimize(network)
        features = optimized.forward_features

        def forward_features(image: torch.Tensor) -> list[torch.Tensor]:
            *others, last = features(image)
            return [*others, 1.001 * last]

        monkeypatch.setattr(optimized, "forward_features", forward_features)
        return optimized

    monkeypatch.setattr(MedMamba, "optimize_for_inference", wrong)


def refused_table(folder: Path) -> Path:
    """A table that a refused run must leave as it was."""
    path = folder / "table.csv"
    path.write_text("of an earlier run", encoding="utf-8")
    return path
