"""A small copy of the repository's configs and of a bundle, for tests that edit them; weights to release."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def repository() -> Path:
    """The repository itself; only to read."""
    return REPOSITORY


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the base and one overlay, nothing built."""
    root = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "configs" / "base", root / "configs" / "base")
    (root / "configs" / "modalities").mkdir()
    shutil.copy(REPOSITORY / "configs" / "modalities" / "chest_xray.json", root / "configs" / "modalities")
    return root


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a bundle as it is in the repository, without outputs of runs."""
    folder = tmp_path / "my bündles" / "breast_ultrasound_classification"
    shutil.copytree(
        REPOSITORY / "bundles" / folder.name, folder, ignore=shutil.ignore_patterns("models", "eval", "__pycache__")
    )
    return folder


@pytest.fixture(scope="session")
def generated_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/model.pt with model.json: random weights of the breast ultrasound bundle, marked as such."""
    from medmamba_monai.bundling.trial import on_trial

    folder = tmp_path_factory.mktemp("generated") / "models"
    with on_trial(REPOSITORY / "bundles" / "breast_ultrasound_classification") as trial:
        assert trial.make_weights()
        shutil.copytree(trial.folder / "models", folder)
    return folder / "model.pt"


@pytest.fixture
def weights(generated_weights: Path, tmp_path: Path) -> Path:
    """The same, passed off as trained: model.pt with model.json, and metrics.json where evaluate writes it."""
    from medmamba_monai.metrics import classification_report

    folder = tmp_path / "run" / "models"
    shutil.copytree(generated_weights.parent, folder)
    info = json.loads((folder / "model.json").read_text())
    del info["extra"]["generated"]
    (folder / "model.json").write_text(json.dumps(info))
    scores = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.5, 0.4, 0.1]]
    report = classification_report([0, 1, 2, 1], scores, info["class_names"])
    (tmp_path / "run" / "eval").mkdir()
    (tmp_path / "run" / "eval" / "metrics.json").write_text(json.dumps(report))
    return folder / "model.pt"
