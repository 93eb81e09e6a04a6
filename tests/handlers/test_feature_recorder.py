"""Features are kept by file, in any order they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer, SimpleInferer
from torch import nn

from medmamba_monai.errors import DataError
from medmamba_monai.handlers import FeatureRecorder
from medmamba_monai.networks import MedMamba


def run(
    network: nn.Module, recorder: FeatureRecorder, decollate: bool = True, inferer: Inferer | None = None
) -> torch.Tensor:
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    items = [{"image": image, "label": 0, "file": f"{index}.png"} for index, image in enumerate(images)]
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=network,
        val_handlers=[recorder],
        decollate=decollate,
        inferer=inferer,
    ).run()
    return images


@pytest.mark.parametrize("decollate", [True, False])
def test_each_file_has_its_own(decollate: bool) -> None:
    network = MedMamba(num_classes=3, depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), d_state=4).eval()
    recorder = FeatureRecorder()
    images = run(network, recorder, decollate)
    logits, features = recorder.of(["4.png", "0.png"])
    with torch.no_grad():
        np.testing.assert_allclose(logits, network(images[[4, 0]]).numpy(), atol=1e-5)
    assert features is not None
    assert features.shape == (2, 64)
    assert not network._forward_hooks
    with pytest.raises(DataError, match=r"9\.png"):
        recorder.of(["9.png"])


def test_networks_without_features_give_logits_alone() -> None:
    recorder = FeatureRecorder()
    run(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), recorder)
    logits, features = recorder.of(["1.png"])
    assert logits.shape == (1, 3)
    assert features is None


def test_the_last_pass_may_count_alone() -> None:
    class Twice(SimpleInferer):
        def __call__(self, inputs: Any, network: Any, *args: Any, **kwargs: Any) -> Any:
            network(inputs * 3)
            return network(inputs)

    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = []
    for recorder, inferer in (
        (FeatureRecorder(), SimpleInferer()),
        (FeatureRecorder(last_pass=True), Twice()),
        (FeatureRecorder(), Twice()),
    ):
        run(network, recorder, inferer=inferer)
        found.append(recorder.of(["1.png"])[0])
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_allclose(found[2], 2 * found[0], rtol=1e-6)  # the mean


def test_switched_off_it_keeps_nothing() -> None:
    recorder = FeatureRecorder(enabled=False)
    run(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), recorder)
    with pytest.raises(DataError):
        recorder.of(["1.png"])
