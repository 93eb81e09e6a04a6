"""The benchmark of unusual images on stubbed networks, and the page that shows its table."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.distance import cdist
from torch import nn

from medmamba_monai.benchmarks import ood
from medmamba_monai.benchmarks.machine import read_rows
from medmamba_monai.benchmarks.ood import RECIPES, SCORES, distance_to_neighbour, table
from medmamba_monai.bundling.calibration import ARRAYS_NAME, FILE_NAME
from medmamba_monai.data import Datalist
from medmamba_monai.errors import CheckpointError, DataError
from medmamba_monai.handlers.files import sha256_of
from medmamba_monai.metrics.calibration import Calibration
from medmamba_monai.metrics.out_of_distribution import UnusualImages
from medmamba_monai.networks.features import FeatureTap

ROOT = Path(__file__).resolve().parents[2]
N = 30


class Sixteenths(nn.Module):
    """Features are the means of an image's sixteenths."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(16, 2)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.forward_features(x))


class Trained:
    """Files are noise about 1; in a folder named far their upper half is brighter."""

    def __init__(self) -> None:
        self.network, self.class_names, self.device = Sixteenths(), ["a", "b"], torch.device("cpu")

    def read(self, path: str) -> Any:
        file = Path(path)
        pixels = 1 + np.random.default_rng(int(file.stem)).normal(size=(1, 32, 32))
        if file.parent.name == "far":
            pixels[:, :16] += 2.0
        return SimpleNamespace(tensor=torch.from_numpy(pixels).float())


def pack(folder: Path, count: int = N) -> None:
    folder.mkdir(parents=True)
    rows = "".join(f"{number}.png,a\n" for number in range(1000, 1000 + count))
    (folder / "labels.csv").write_text(f"file,label\n{rows}")


def calibrate(trained: Trained, folder: Path, numbers: range) -> None:
    folder.mkdir()
    (folder / "model.pt").write_bytes(b"weights")
    tap = FeatureTap(trained.network)
    with torch.no_grad():
        trained.network(torch.stack([trained.read(f"near/{number}.png").tensor for number in numbers]))
    logits, features = tap.take()
    tap.close()
    unusual, _ = UnusualImages.fit(logits, features)
    assert unusual is not None
    assert unusual.gaussian is not None
    arrays = {"mean": unusual.gaussian.mean, "whitening": unusual.gaussian.whitening}
    save_file({name: torch.from_numpy(v.copy()).float() for name, v in arrays.items()}, folder / ARRAYS_NAME)
    facts = {**unusual.facts(), "reference": ARRAYS_NAME, "reference_sha256": sha256_of(folder / ARRAYS_NAME)}
    labels = np.arange(len(numbers)) % 2
    assert logits is not None
    content = Calibration.fit(labels, logits.softmax(1).numpy(), ["a", "b"], ood=facts).to_json()
    (folder / FILE_NAME).write_text(json.dumps({"weights_sha256": sha256_of(folder / "model.pt"), **content}))


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """A folder of packs, ultrasound among them, a split of it, and a training that takes no time and runs once."""
    for name, count in (("ultrasound", N), ("far", N), ("alike", 3 * N), ("tiny", 3)):
        pack(tmp_path / "data" / name, count)
    trained = Trained()
    work = tmp_path / "work" / "ultrasound"
    parts = [[{"image": f"{n}.png", "label": n % 2} for n in range(start, start + N)] for start in (100, 0, 200)]
    work.mkdir(parents=True)
    Datalist(["a", "b"], *parts).save(work / "datalist.json")

    def train(root: Path, mode: str, options: dict[str, Any]) -> None:
        assert (root.name, mode) == ("breast_ultrasound_classification", "train")
        assert (options["epochs"], options["image_size"], options["seed"]) == (8, 64, 0)
        calibrate(trained, options["ckpt_dir"], range(N))  # stops where the folder exists

    monkeypatch.setattr(ood, "run_mode", train)
    monkeypatch.setattr(ood, "open_trained", lambda ckpt_dir, root: trained)
    parser = argparse.ArgumentParser()
    ood.add_arguments(parser)
    out = tmp_path / "out.csv"
    places = ["--data", str(tmp_path / "data"), "--work", str(tmp_path / "work"), "--out", str(out)]
    return parser.parse_args([*places, "--packs", "ultrasound"])


def test_every_score_tells_every_other_pack_and_a_measured_one_is_left_out(
    arguments: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    ood.run(arguments)
    ood.run(arguments)
    rows = read_rows(arguments.out)
    arguments.out.unlink()
    ood.run(arguments)  # with the network that was kept
    assert read_rows(arguments.out) == rows
    assert [(row["other"], row["score"]) for row in rows] == [(o, s) for o in ("alike", "far") for s in SCORES]
    assert {(row["trained_on"], row["n_in"], row["epochs"]) for row in rows} == {("ultrasound", "30", "8")}
    assert [row["n_out"] for row in rows[:: len(SCORES)]] == ["80", "30"]
    found = {(row["other"], row["score"]): float(row["auroc"]) for row in rows}
    assert found["far", "mahalanobis"] > 0.99
    assert found["far", "knn"] > 0.99
    for score in SCORES:
        assert 0.3 < found["alike", score] < 0.7
    assert "| ultrasound |" in capsys.readouterr().out


def test_without_other_packs_or_a_distance_it_says_so(arguments: argparse.Namespace, tmp_path: Path) -> None:
    for name in ("far", "alike"):
        (tmp_path / "data" / name / "labels.csv").unlink()
    with pytest.raises(DataError, match="no other pack"):
        ood.run(arguments)
    file = tmp_path / "work" / "ultrasound" / "models" / FILE_NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), "ood": {}}))
    with pytest.raises(CheckpointError, match="no distance"):
        ood.run(arguments)
    assert not arguments.out.exists()


def test_the_distance_to_a_neighbour_is_that_of_a_sorted_row() -> None:
    rng = np.random.default_rng(0)
    reference, features = rng.normal(size=(25, 6)), rng.normal(size=(7, 6))
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (features, reference)]
    expected = np.sort(cdist(*unit), axis=1)
    np.testing.assert_allclose(distance_to_neighbour(reference, features), expected[:, 9])
    np.testing.assert_allclose(
        distance_to_neighbour(reference[:5], features), np.sort(cdist(unit[0], unit[1][:5]))[:, 4]
    )


def test_the_table_has_mean_and_range() -> None:
    rows = [
        {"trained_on": "blood_cell", "other": other, "score": score, "auroc": value}
        for other, value in (("x", "0.5"), ("y", "0.9"))
        for score in SCORES
    ]
    assert table(rows)[2] == f"| blood cell |{' 0.70 (0.50 to 0.90) |' * len(SCORES)}"


def test_the_page_shows_what_was_measured() -> None:
    with (ROOT / "docs" / "benchmarks" / "ood.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["trained_on"] for row in rows} == set(RECIPES)
    assert "\n".join(table(rows)) in (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
