"""What may be averaged, and what is refused with the folder's name and the way out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer
from monai.transforms import Compose, OneOf, RandFlipd, RandRotate90d

from medmamba_monai.bundling.averaging import Averaging, flips_of
from medmamba_monai.engines import AveragingInferer
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.networks import MedMamba
from medmamba_monai.networks.model_info import ModelInfo


def flip(axis: Any, prob: float = 0.5, keys: Any = "image") -> RandFlipd:
    return RandFlipd(keys, prob, spatial_axis=axis)


def test_flips_are_those_that_images_may_go_through() -> None:
    assert flips_of(Compose([flip(1), flip(0), RandRotate90d("image", 0.5)]), 2) == [[0], [1]]
    assert flips_of(Compose([Compose([flip(1)]), OneOf([flip(-1), flip(2)])]), 3) == [[1], [2]]
    assert flips_of([flip(None)], 3) == [[0, 1, 2]]
    assert flips_of([flip([1, 0])], 2) == [[0, 1]]
    assert flips_of(Compose([flip(0, prob=0.0), flip(0, keys="mask")]), 2) == []
    assert flips_of((), 2) == []


SIZE = [32, 40]


def weights(folder: Path, seed: int, **changes: Any) -> str:
    """Write model.pt and model.json of a small network."""
    torch.manual_seed(seed)
    network = MedMamba(num_classes=2, in_channels=1, depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), d_state=4)
    info = ModelInfo(["a", "b"], 1, 2, SIZE, network.config, "digest", {"flips": [[1]]})
    dataclasses.replace(info, **changes).save(folder)
    torch.save(network.state_dict(), folder / "model.pt")
    return str(folder)


@pytest.fixture
def main(tmp_path: Path) -> str:
    return weights(tmp_path / "main", 0)


def test_nothing_is_averaged_unless_asked_for(main: str) -> None:
    for ensemble in (None, []):
        averaging = Averaging(ModelInfo.load(main), main, ensemble=ensemble, calibrated=True, prediction_sets=True)
        assert not averaging.on
        assert (averaging.flips, averaging.networks(), averaging.remarks) == ([], [], {})
        averaging.tell(SimpleInferer())


def test_networks_come_with_their_weights(main: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders = [weights(tmp_path / str(seed), seed) for seed in (1, 2)]
    averaging = Averaging(ModelInfo.load(main), main, True, folders, calibrated=False)
    assert averaging.remarks == {"averaged": {"views": 2, "members": 3}}
    for folder, network in zip(folders, averaging.networks(), strict=True):
        assert not network.training
        stored = torch.load(Path(folder) / "model.pt", weights_only=True)
        assert all(torch.equal(value, stored[name]) for name, value in network.state_dict().items())
    caplog.set_level("INFO")
    averaging.tell(AveragingInferer("multiclass", averaging.flips, averaging.networks()))
    assert "averages 2 views (flips along the axes [[1]]) of 3 networks" in caplog.text
    with pytest.raises(ConfigError, match="SimpleInferer"):
        averaging.tell(SimpleInferer())
    assert list(Averaging(ModelInfo.load(main), main, ensemble=folders[0]).members) == [folders[0]]


def refused(kind: type[Exception], main: str, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        Averaging(ModelInfo.load(main), main, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, "before that was recorded"),
        ({"flips": []}, "trained without flips"),
        ({"flips": [[2]]}, "no list of lists"),
        ({"flips": [1]}, "no list of lists"),
        ({"flips": "left-right"}, "no list of lists"),
    ],
)
def test_views_need_recorded_flips(extra: dict[str, Any], expected: str, tmp_path: Path) -> None:
    message = refused(CheckpointError, weights(tmp_path / "w", 0, extra=extra), tta=True)
    assert expected in message
    assert "tta" in message
    assert "Remedy" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"class_names": ["b", "a"]}, "class names"),
        ({"task": "multilabel"}, "task"),
        ({"channels": 3}, "channels"),
        ({"preprocessing_digest": "other"}, "digest"),
        ({"spatial_dims": 3}, "spatial dimensions"),
        ({"image_size": [40, 32]}, "image size"),
        ({"network": {}}, "none of this package"),
    ],
)
def test_a_network_that_does_not_fit_is_named(
    changes: dict[str, Any], expected: str, main: str, tmp_path: Path
) -> None:
    fits, other = weights(tmp_path / "fits", 1), weights(tmp_path / "other", 2, **changes)
    message = refused(CheckpointError, main, ensemble=[fits, other])
    assert expected in message
    assert other in message


def test_views_are_right_for_every_network(main: str, tmp_path: Path) -> None:
    other = weights(tmp_path / "other", 1, extra={"flips": [[0], [1]]})
    assert "flips" in refused(CheckpointError, main, tta=True, ensemble=other)
    assert Averaging(ModelInfo.load(main), main, ensemble=other).on


def test_what_cannot_go_together_is_refused(main: str, tmp_path: Path) -> None:
    other = weights(tmp_path / "other", 1)
    assert "--exported" in refused(ConfigError, main, ensemble=other, exported="model.onnx")
    for name in ("calibrated", "prediction_sets"):
        assert f"leave --{name} out" in refused(ConfigError, main, tta=True, **{name: True})
        assert f"leave --{name} out" in refused(ConfigError, main, ensemble=[other], **{name: True})


def test_a_network_counts_once(main: str, tmp_path: Path) -> None:
    same = weights(tmp_path / "copy", 0)
    assert "same weights" in refused(CheckpointError, main, ensemble=[same])
    assert "same weights" in refused(CheckpointError, main, ensemble=[main])


def test_missing_weights_and_descriptions_are_named(main: str, tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refused(CheckpointError, main, ensemble=str(tmp_path / "none"))
    other = weights(tmp_path / "other", 1)
    (tmp_path / "other" / "model.pt").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        Averaging(ModelInfo.load(main), main, ensemble=other).networks()


def test_other_parts_of_the_same_files_are_refused_and_leaks_told(main: str, tmp_path: Path) -> None:
    class Dealt:
        def check_same_parts(self, trained_on: Any) -> None:
            if trained_on != "these":
                raise CheckpointError("other parts")

    told = weights(tmp_path / "leak", 1, extra={"trained_on": "these", "leakage": {"groups": 2}})
    averaging = Averaging(ModelInfo.load(main), main, ensemble=[told])
    averaging.check_parts(Dealt())  # type: ignore[arg-type]
    assert averaging.remarks["leakage"] == {"groups": 2}
    other = weights(tmp_path / "other", 2, extra={"trained_on": "those"})
    with pytest.raises(CheckpointError, match=str(tmp_path / "other")):
        Averaging(ModelInfo.load(main), main, ensemble=[told, other]).check_parts(Dealt())  # type: ignore[arg-type]


def test_views_of_the_network_as_they_were_trained_are_plain_numpy_flips(main: str) -> None:
    """Axis 1 of the record is what RandFlipd turns as spatial axis 1 and the inferer as the last of (B, C, H, W)."""
    image = np.arange(6.0, dtype=np.float32).reshape(1, 2, 3)
    turned = flip(1, prob=1.0)({"image": image})["image"]
    seen: list[torch.Tensor] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x.flatten(1)

    inferer = AveragingInferer("multiclass", Averaging(ModelInfo.load(main), main, tta=True).flips)
    inferer(torch.from_numpy(image)[None], network)
    assert np.array_equal(seen[0][0].numpy(), np.asarray(turned))
