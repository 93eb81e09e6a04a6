"""The explanations benchmark on a tiny pack with a network that was only initialised."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medmamba_monai.benchmarks import explanations
from medmamba_monai.bundling.opened import TrainedBundle
from medmamba_monai.data import Datalist
from medmamba_monai.networks import create


def test_every_map_gets_a_row_and_a_measured_pack_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        (tmp_path / "ultrasound").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "ultrasound" / f"{number}.png")
    torch.manual_seed(0)
    network = create("nano", in_channels=1, num_classes=2).eval()

    class Trained(TrainedBundle):
        def read(self, path: str) -> object:  # type: ignore[override]
            pixels = torch.from_numpy(np.array(Image.open(path), dtype=np.float32) / 128 - 1)
            return argparse.Namespace(tensor=pixels[None])

    trained = Trained(network, None, ["a", "b"], torch.device("cpu"), None)  # type: ignore[arg-type]
    records = [{"image": f"{number}.png", "label": number % 2} for number in range(3)]
    datalist = Datalist(["a", "b"], [], [], records)
    monkeypatch.setattr(explanations, "_trained", lambda pack, arguments: (trained, datalist))
    parser = argparse.ArgumentParser()
    explanations.add_arguments(parser)
    out = tmp_path / "out.csv"
    arguments = parser.parse_args(["--data", str(tmp_path), "--packs", "ultrasound", "--out", str(out)])
    explanations.run(arguments)
    explanations.run(arguments)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["map"] for row in rows][:4] == ["random", "centre", "contrast", "scan"]
    assert len(rows) == 3 + 9 + 1
    for row in rows:
        assert float(row["score"]) == pytest.approx(float(row["insertion"]) - float(row["deletion"]), abs=0.002)
    assert "scan" in capsys.readouterr().out
