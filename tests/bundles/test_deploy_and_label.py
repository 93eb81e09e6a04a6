"""What MONAI Deploy and MONAI Label ask of a bundle that classifies, over all bundles (their sources of 2026-01)."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from .conftest import REPOSITORY, BundleCopy, copy_bundle

BUNDLES = sorted(path.name for path in (REPOSITORY / "bundles").iterdir())
WRITES_FILES = ("SaveImage", "SaveClassification", "Writer", "Saver")


def config(name: str) -> dict[str, Any]:
    return json.loads((REPOSITORY / "bundles" / name / "configs" / "inference.json").read_text())


def targets(section: Any) -> list[str]:
    """The transforms of a section that is written as a Compose."""
    assert section["_target_"].split(".")[-1] == "Compose"
    return [transform["_target_"].split(".")[-1] for transform in section["transforms"]]


@pytest.mark.parametrize("name", BUNDLES)
def test_inference_is_one_file_with_every_part_they_ask_for(name: str) -> None:
    content = config(name)
    assert {"device", "bundle_root", "network_def", "preprocessing", "postprocessing", "inferer"} <= set(content)
    texts = json.dumps(content)
    assert '"%' not in texts, "a macro may point to another file"
    assert "classification" in name, "MONAI Label tells the kind of a bundle from its name"
    metadata = json.loads((REPOSITORY / "bundles" / name / "configs" / "metadata.json").read_text())
    assert "classification" in metadata["task"]
    labels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(labels) == [str(number) for number in range(len(labels))]
    for package, version in metadata["required_packages_version"].items():
        assert version[:1].isdigit(), f"{package}: Deploy writes =={version}"


@pytest.mark.parametrize("name", BUNDLES)
def test_processing_needs_no_label_and_writes_no_file(name: str) -> None:
    content = config(name)
    before, after = targets(content["preprocessing"]), targets(content["postprocessing"])
    assert not [t for t in before if t.startswith("EnsureChannelFirst")], "it would rely on a reader's metadata"
    assert not [t for t in before + after if any(word in t for word in WRITES_FILES)]
    for transform in content["preprocessing"]["transforms"]:
        assert transform["keys"] == "image"
    for transform in content["postprocessing"]["transforms"]:
        assert transform["keys"] == "pred"


class Operator:
    """Does with a bundle what MONAI Deploy's MonaiClassificationOperator does, which knows only its folder."""

    def __init__(self, bundle_path: Path) -> None:
        from monai.bundle import ConfigParser
        from monai.transforms import Compose

        self.bundle_path = bundle_path
        parser = ConfigParser()
        parser.read_config(str(bundle_path / "configs" / "inference.json"))
        steps = parser.get_parsed_content("preprocessing#transforms")
        self.before = Compose([step for step in steps if type(step).__name__ not in ("LoadImage", "LoadImaged")])
        self.network = parser.get_parsed_content("network_def")
        weights = torch.load(bundle_path / "models" / "model.pt", map_location="cpu", weights_only=True)
        self.network.load_state_dict(weights)
        self.network.eval()
        self.after = Compose(parser.get_parsed_content("postprocessing#transforms"))

    def compute(self, file: Path) -> np.ndarray:
        """Classify a picture that Deploy's loader turned to RGB, channels first, floats from 0 to 255."""
        pixels = np.array(Image.open(file).convert("RGB")).astype(np.float32)
        image = self.before({"image": torch.from_numpy(pixels.transpose(2, 0, 1))})["image"]
        with torch.no_grad():
            return self.after({"pred": self.network(image.unsqueeze(0))})["pred"].squeeze(0).numpy()


@pytest.mark.parametrize("name", ["breast_ultrasound_classification", "skin_photo_classification"])
def test_deploys_operator_predicts_what_the_bundle_predicts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = copy_bundle(name, tmp_path)
    bundle.run("train")
    bundle.run("inference")
    with (bundle.root / "eval" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    monkeypatch.chdir(tmp_path)
    operator = Operator(bundle.root)
    for row in rows[:6]:
        expected = [float(value) for value in list(row.values())[2:]]
        np.testing.assert_allclose(operator.compute(bundle.data / row["file"]), expected, atol=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == {bundle.root.parent.name, bundle.data.name}


def label_server(bundle: BundleCopy, image: Path) -> torch.Tensor:
    """Infer as MONAI Label's bundle app does: one config, the folder as an override, parts taken one by one."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(bundle.root / "configs" / "inference.json"))
    parser.read_meta(str(bundle.root / "configs" / "metadata.json"))
    parser.config.update({"bundle_root": str(bundle.root)})
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(bundle.root / "models" / "model.pt", weights_only=True))
    item = parser.get_parsed_content("preprocessing")({"image": str(image)})
    with torch.no_grad():
        logits = parser.get_parsed_content("inferer")(item["image"].unsqueeze(0), network.eval())
    return parser.get_parsed_content("postprocessing")({"pred": logits[0]})["pred"]


def test_labels_app_predicts_what_the_bundle_predicts(fresh: BundleCopy) -> None:
    fresh.run("train")
    fresh.run("inference")
    with (fresh.root / "eval" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    predicted = label_server(fresh, fresh.data / row["file"])
    np.testing.assert_allclose(predicted.flatten().tolist(), [float(v) for v in list(row.values())[2:]], atol=1e-4)
