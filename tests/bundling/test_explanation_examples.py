"""Which evaluated images are explained, and what evaluate writes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image

from medmamba_monai.bundling.explanation_examples import (
    ERROR,
    RIGHT,
    ExplanationExamples,
    _remove_examples,
    choose_examples,
)
from medmamba_monai.bundling.opened import open_trained
from medmamba_monai.metrics import PredictionTable


def table(
    probabilities: list[list[float]], labels: list[int] | list[list[int]], task: str = "multiclass"
) -> PredictionTable:
    p = np.array(probabilities)
    names = ["a", "b", "c"][: p.shape[1]]
    return PredictionTable(names, [f"{i}.png" for i in range(len(p))], None, np.array(labels), p, task)


def test_the_surest_errors_come_first_then_right_ones_and_classes_take_turns() -> None:
    p = [[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.95, 0.05], [0.9, 0.1], [0.3, 0.7], [0.4, 0.6]]
    labels = [1, 1, 0, 0, 0, 1, 1]  # wrong: 0 (0.9 for a), 1 (0.8 for a), 2 (0.8 for b)
    chosen = choose_examples(table(p, labels), 6)
    assert [(e.row, e.target, e.why) for e in chosen] == [
        (0, 0, ERROR), (2, 1, ERROR), (1, 0, ERROR), (3, 0, RIGHT), (5, 1, RIGHT), (4, 0, RIGHT)
    ]  # fmt: skip


def test_one_kind_fills_up_where_the_other_lacks() -> None:
    right = table([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], [0, 1, 0])
    assert [e.why for e in choose_examples(right, 6)] == [RIGHT] * 3
    wrong = table([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], [1, 0, 1])
    assert [e.why for e in choose_examples(wrong, 2)] == [ERROR] * 2
    assert len(choose_examples(table([[0.9, 0.1]] * 4, [1, 0, 1, 0]), 3)) == 3


def test_of_several_findings_the_one_furthest_from_the_truth_is_explained() -> None:
    several = table(
        [[0.9, 0.2, 0.1], [0.6, 0.1, 0.02], [0.1, 0.7, 0.9]], [[1, 0, 0], [1, 0, 1], [0, 1, 1]], "multilabel"
    )
    chosen = choose_examples(several, 3)
    assert [(e.row, e.target, e.why) for e in chosen] == [(1, 2, ERROR), (0, 0, RIGHT), (2, 2, RIGHT)]


@pytest.fixture
def evaluated(bundle: Path, weights: Path, tmp_path: Path) -> ExplanationExamples:
    """A handler beside the predictions.csv of four images."""
    trained = open_trained(weights.parent, bundle, device="cpu")
    rng, rows, items = np.random.default_rng(0), ["file,label,prediction," + ",".join(trained.class_names)], []
    for number in range(4):
        file = f"{'benign' if number < 2 else 'normal'}/{number}.png"
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + number, 50), dtype=np.uint8)).save(tmp_path / file)
        rows.append(f"{file},{Path(file).parent},benign,0.8,0.1,0.1")
        items.append({"image": str(tmp_path / file), "file": file, "label": 0})
    (tmp_path / "predictions.csv").write_text("\n".join(rows) + "\n")
    return ExplanationExamples(trained.network, trained.preprocessing, items, str(tmp_path), count=3)


def test_overlays_and_an_index_are_written_and_replaced(evaluated: ExplanationExamples) -> None:
    folder = evaluated.output_dir / "explanations"
    evaluated(Engine(lambda engine, batch: None))
    index = json.loads((folder / "index.json").read_text())
    assert index["method"] == "scan"
    assert [item["why"] for item in index["items"]] == [ERROR, RIGHT, RIGHT]
    first = index["items"][0]
    assert (first["label"], first["prediction"], first["target"]) == ("normal", "benign", "benign")
    assert first["probability"] == 0.8
    assert {path.name for path in folder.glob("*.png")} == {item["overlay"] for item in index["items"]}
    evaluated.count = 1
    evaluated(Engine(lambda engine, batch: None))
    assert len(list(folder.glob("*.png"))) == 1
    evaluated.count = 0
    evaluated(Engine(lambda engine, batch: None))
    assert not folder.exists()


def test_the_map_of_one_network_of_several_says_so(evaluated: ExplanationExamples) -> None:
    evaluated(Engine(lambda engine, batch: None))
    path = evaluated.output_dir / "explanations" / "index.json"
    assert "own_probability" not in json.loads(path.read_text())["items"][0]
    evaluated.averaged = True
    evaluated(Engine(lambda engine, batch: None))
    for item in json.loads(path.read_text())["items"]:
        assert item["probability"] == 0.8
        assert 0 < item["own_probability"] < 0.8  # random weights


def test_an_image_that_cannot_be_explained_does_not_end_the_run(
    evaluated: ExplanationExamples, caplog: pytest.LogCaptureFixture
) -> None:
    Path(evaluated.paths["normal/2.png"]).write_bytes(b"no picture")
    evaluated(Engine(lambda engine, batch: None))
    items = json.loads((evaluated.output_dir / "explanations" / "index.json").read_text())["items"]
    assert len(items) == 2
    assert "normal/2.png could not be explained" in caplog.text


def test_other_networks_are_explained_by_occlusion(evaluated: ExplanationExamples) -> None:
    class Other(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :3]

    evaluated.network = Other()
    evaluated(Engine(lambda engine, batch: None))
    assert json.loads((evaluated.output_dir / "explanations" / "index.json").read_text())["method"] == "occlusion"


def test_what_was_asked_for_by_hand_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "explanations"
    folder.mkdir()
    items = [{"overlay": "mine.png", "why": "asked for"}, {"overlay": "old.png", "why": ERROR}]
    (folder / "index.json").write_text(json.dumps({"method": "scan", "items": items}))
    for item in items:
        (folder / item["overlay"]).touch()
    _remove_examples(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["index_asked_for.json", "mine.png"]


def test_nothing_is_left_of_an_earlier_evaluation(tmp_path: Path) -> None:
    folder = tmp_path / "explanations"
    folder.mkdir()
    (folder / "index.json").write_text(json.dumps({"items": [{"overlay": "old.png", "why": RIGHT}]}))
    (folder / "old.png").touch()
    _remove_examples(folder)
    assert not folder.exists()
