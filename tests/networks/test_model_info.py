"""model.json: round trip, comparison, and what is said when it is missing or damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmamba_monai.errors import CheckpointError
from medmamba_monai.networks import ModelInfo

INFO = ModelInfo(["benign", "malignant"], 1, 2, [64, 64], {"dims": [8, 16, 32, 64]}, "abc", {"metric": 0.5})


def test_round_trip(tmp_path: Path) -> None:
    INFO.save(tmp_path / "models")
    assert ModelInfo.load(tmp_path / "models") == INFO
    INFO.save(tmp_path / "models")
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["model.json"]


def test_differences_are_named() -> None:
    INFO.check()
    INFO.check(["benign", "malignant"], 1, "abc")
    with pytest.raises(CheckpointError, match=r"class names \['benign', 'malignant'\], now \['malignant', 'benign'\]"):
        INFO.check(class_names=["malignant", "benign"])
    with pytest.raises(CheckpointError, match="image channels 1, now 3"):
        INFO.check(channels=3)
    with pytest.raises(CheckpointError, match="task multiclass, now multilabel"):
        INFO.check(task="multilabel")
    with pytest.raises(CheckpointError, match="preprocessing digest"):
        INFO.check(preprocessing_digest="abd")


def test_files_without_a_task_are_of_one_class_an_image(tmp_path: Path) -> None:
    INFO.save(tmp_path)
    file = tmp_path / "model.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    assert values.pop("task") == "multiclass"
    file.write_text(json.dumps(values), encoding="utf-8")
    assert ModelInfo.load(tmp_path) == INFO


def test_missing_and_damaged(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.json.*Remedy: train first"):
        ModelInfo.load(tmp_path)
    (tmp_path / "model.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ModelInfo.load(tmp_path)
    (tmp_path / "model.json").write_text('{"class_names": []}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="entries are missing: channels"):
        ModelInfo.load(tmp_path)
