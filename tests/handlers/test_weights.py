"""Weights for inference: loaded exactly, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medmamba_monai.errors import CheckpointError
from medmamba_monai.handlers import load_weights_for_inference
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder
from medmamba_monai.networks.model_info import ModelInfo


@pytest.fixture
def trained(tmp_path: Path) -> nn.Module:
    network = nn.Linear(3, 2)
    CheckpointFolder(tmp_path).save("model.pt", network.state_dict(), {})
    return network


def test_folder_file_and_safetensors(tmp_path: Path, trained: nn.Module) -> None:
    save_file(trained.state_dict(), tmp_path / "other.safetensors")
    for path in (tmp_path, tmp_path / "model.pt", tmp_path / "other.safetensors"):
        network = nn.DataParallel(nn.Linear(3, 2))
        load_weights_for_inference(network, str(path))
        assert torch.equal(network.module.weight, trained.weight)


def test_missing_weights_never_predict(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    before = network.weight.detach().clone()
    for path in (tmp_path, tmp_path / "model.pt", tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="no weights here, and an untrained network would predict at random"):
            load_weights_for_inference(network, path)
    assert torch.equal(network.weight, before)


def test_damaged_weights_are_refused(tmp_path: Path, trained: nn.Module) -> None:
    content = bytearray((tmp_path / "model.pt").read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="differs from its digest"):
        load_weights_for_inference(nn.Linear(3, 2), tmp_path)


def test_differences_are_named(tmp_path: Path, trained: nn.Module) -> None:
    with pytest.raises(CheckpointError, match=r"'weight' is \(2, 3\), the network's is \(5, 3\)"):
        load_weights_for_inference(nn.Linear(3, 5), tmp_path)
    other = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"'0\.weight' is missing.*and 3 more"):
        load_weights_for_inference(other, tmp_path)
    save_file({"weight": torch.ones(2, 3), "scale": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="'bias' is missing; 'scale' is unknown to the network"):
        load_weights_for_inference(nn.Linear(3, 2), tmp_path / "a.safetensors")


def test_weights_inside_a_training_state(tmp_path: Path, trained: nn.Module) -> None:
    torch.save({"network": trained.state_dict(), "epoch": 1}, tmp_path / "checkpoint.pt")
    network = nn.Linear(3, 2)
    load_weights_for_inference(network, tmp_path / "checkpoint.pt")
    assert torch.equal(network.weight, trained.weight)


def test_expectations_are_compared_with_the_facts(tmp_path: Path, trained: nn.Module) -> None:
    with pytest.raises(CheckpointError, match=r"model\.json"):
        load_weights_for_inference(nn.Linear(3, 2), tmp_path, class_names=["a", "b"])
    info = ModelInfo(
        class_names=["a", "b"], channels=1, spatial_dims=2, image_size=[8, 8], network={},
        preprocessing_digest="d", extra={},
    )  # fmt: skip
    info.save(tmp_path)
    load_weights_for_inference(nn.Linear(3, 2), tmp_path, class_names=("a", "b"), channels=1)
    for wrong in ({"class_names": ["b", "a"]}, {"channels": 3}, {"preprocessing_digest": "e"}, {"task": "multilabel"}):
        with pytest.raises(CheckpointError):
            load_weights_for_inference(nn.Linear(3, 2), tmp_path, **wrong)  # type: ignore[arg-type]
