"""The baseline computes the same scan, so that times compare like with like."""

from __future__ import annotations

import torch

from medmamba_monai.benchmarks import released_flow
from medmamba_monai.benchmarks.scan import problem
from medmamba_monai.ops.selective_scan import reference


def test_equals_the_reference() -> None:
    inputs = problem(7, 12, 2, 2, torch.float64)
    assert torch.allclose(
        released_flow.directional_scan(inputs), reference.directional_scan(inputs), rtol=1e-5, atol=1e-5
    )
