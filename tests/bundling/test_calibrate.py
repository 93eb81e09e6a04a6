"""Fitting: the weights that were kept are what is fitted, and nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.inferers import SimpleInferer
from torch import nn

from medmamba_monai.bundling.calibrate import fit_calibration
from medmamba_monai.bundling.calibration import stored_calibration
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder
from medmamba_monai.handlers.files import sha256_of
from medmamba_monai.metrics.calibration import Calibration
from medmamba_monai.metrics.out_of_distribution import detection_auroc
from medmamba_monai.networks.features import FeatureTap

NAMES = ["a", "b", "c"]


class Linear(nn.Module):
    """Logits from the mean of an image's channels; with a norm, whose statistics evaluation must not move."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(x).mean((2, 3)))


def items(n: int = 60) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, 4, 4, generator=generator)
    labels = (images.mean((2, 3)) + 0.2 * torch.randn(n, 3, generator=generator)).argmax(1)
    pairs = zip(images, labels, strict=True)
    return [{"image": image, "label": int(y), "file": f"{i}.png"} for i, (image, y) in enumerate(pairs)]


def kept(folder: Path) -> Linear:
    """Weights on the disk that differ from those of the network in hand."""
    network = Linear()
    with torch.no_grad():
        network.head.weight.copy_(20 * torch.eye(3))
        network.head.bias.zero_()
    folder.mkdir(exist_ok=True)
    CheckpointFolder(folder).save("model.pt", network.state_dict(), {})
    return network.eval()


def fit(network: nn.Module, folder: Path, loader: Any = None, **options: Any) -> Path:
    loader = loader or DataLoader(Dataset(items()), batch_size=16)
    given = {"device": "cpu", "ckpt_dir": str(folder), "class_names": NAMES, **options}
    return fit_calibration(network, loader, SimpleInferer(), **given)


def test_the_kept_weights_are_fitted_and_the_network_stays_as_it_is(tmp_path: Path) -> None:
    best = kept(tmp_path)
    network = Linear().train()
    network.head.weight.grad = torch.ones(3, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loader = DataLoader(Dataset(items()), batch_size=16)
    random = torch.get_rng_state()
    file = fit(network, tmp_path, loader)
    assert network.training
    assert network.head.weight.grad is not None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    content = json.loads(file.read_text())
    assert content["weights_sha256"] == sha256_of(tmp_path / "model.pt")
    data = items()
    with torch.no_grad():
        probabilities = best(torch.stack([item["image"] for item in data])).double().softmax(1).numpy()
    expected = Calibration.fit([item["label"] for item in data], probabilities, NAMES)
    found = Calibration.from_json(content, "")
    assert found.n == 60
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-4)
    assert found.set_threshold == pytest.approx(expected.set_threshold, abs=1e-5)


def test_wrappers_of_several_processes_are_seen_through(tmp_path: Path) -> None:
    kept(tmp_path)
    alone = fit(Linear(), tmp_path).read_bytes()
    assert fit(nn.DataParallel(Linear()), tmp_path).read_bytes() == alone


def test_other_parts_and_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split=test.*--split validation"):
        fit(Linear(), tmp_path, part="test")
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        fit(Linear(), tmp_path)
    kept(tmp_path)
    with pytest.raises(ConfigError, match="criterion='accuracy'"):
        fit(Linear(), tmp_path, criterion="accuracy")
    assert not (tmp_path / "calibration.json").exists()


class Showing(Linear):
    """The same, showing each image's features."""

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


def test_patients_are_left_out_whole(tmp_path: Path) -> None:
    kept(tmp_path)
    alone = json.loads(fit(Showing(), tmp_path).read_text())
    assert not [remark for remark in alone["remarks"] if "patients" in remark]
    groups = {f"{index}.png": f"P{index // 6}" for index in range(60)}
    grouped = json.loads(fit(Showing(), tmp_path, groups=groups).read_text())
    assert any("only 10 patients or groups" in remark for remark in grouped["remarks"])
    assert grouped["ood"]["scales"]["mahalanobis"] != alone["ood"]["scales"]["mahalanobis"]
    assert grouped["temperature"] == alone["temperature"]


def test_the_stored_score_tells_planted_images(tmp_path: Path) -> None:
    kept(tmp_path)
    fit(Showing(), tmp_path)
    unusual = stored_calibration(str(tmp_path), NAMES, required=True).unusual
    assert unusual is not None
    network = Showing().eval()
    network.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    near = torch.randn(200, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    scores = []
    for images in (near, near + torch.tensor([2.0, -2.0, 0.0])[:, None, None]):
        tap = FeatureTap(network)
        with torch.no_grad():
            network(images)
        scores.append(unusual.score(*tap.take()))
        tap.close()
    assert (scores[0] > 1).mean() < 0.15
    assert (scores[1] > 1).mean() > 0.95
    assert detection_auroc(*scores) > 0.99
