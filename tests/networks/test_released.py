"""The converter's strictness; its parity with real released tensors is in test_golden.py."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai.errors import CheckpointError
from medmamba_monai.networks import MedMamba, from_released_state_dict, to_released_state_dict
from medmamba_monai.networks.released import is_released


def state(**options: object) -> dict[str, torch.Tensor]:
    arguments = {"depths": (1, 2, 1, 1), "dims": (8, 16, 32, 64), "num_classes": 3, **options}
    return to_released_state_dict(MedMamba(**arguments))  # type: ignore[arg-type]


def test_sizes_are_read_from_the_tensors() -> None:
    network = from_released_state_dict(state(d_state=4, in_channels=1), drop_path_rate=0.2)
    assert network.config["depths"] == [1, 2, 1, 1]
    assert network.config["dims"] == [8, 16, 32, 64]
    assert (network.config["d_state"], network.in_channels, network.num_classes) == (4, 1, 3)
    assert (network.config["odd_size"], network.config["drop_path_rate"]) == ("crop", 0.2)


def test_unknown_and_missing_keys_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"unknown keys: layers\.0\.extra, tail"):
        from_released_state_dict({**state(), "layers.0.extra": torch.zeros(1), "tail": torch.zeros(1)})
    for name in (
        "layers.1.blocks.1.self_attention.Ds",
        "patch_embed.norm.bias",
        "layers.0.downsample.norm.weight",
    ):
        with pytest.raises(CheckpointError, match="missing"):
            from_released_state_dict({k: v for k, v in state().items() if k != name})
    with pytest.raises(CheckpointError, match="sizes cannot be read"):
        from_released_state_dict({"head.weight": torch.zeros(3, 64)})


def test_names() -> None:
    released = state()
    assert is_released(released)
    assert not is_released(MedMamba(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64)).state_dict())
    assert released["layers.0.blocks.0.self_attention.A_logs"].shape == (4 * 8, 16)
    assert released["layers.0.blocks.0.self_attention.Ds"].shape == (4 * 8,)


def test_what_the_released_code_cannot_hold() -> None:
    with pytest.raises(CheckpointError, match="raster"):
        state(scan="raster")
    with pytest.raises(CheckpointError, match="spatial_dims=3"):
        state(spatial_dims=3)
