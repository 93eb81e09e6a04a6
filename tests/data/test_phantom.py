"""Phantoms: the same for the same seed, and not told apart by brightness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medmamba_monai.data.phantom import CLASS_NAMES, phantom, write_phantoms


def test_the_same_seed_draws_the_same_film() -> None:
    assert np.array_equal(phantom("nodules", 3), phantom("nodules", 3))
    assert not np.array_equal(phantom("nodules", 3), phantom("nodules", 4))
    assert phantom("vessels", 0, size=64).shape == (64, 64)


def test_brightness_does_not_give_the_class_away() -> None:
    films = np.stack([phantom(label, seed, 64) for label in CLASS_NAMES for seed in range(150)])
    labels = np.repeat([0, 1], 150)
    histograms = np.stack([np.histogram(film, 32, (0, 256))[0] for film in films])
    features = np.column_stack([films.mean((1, 2)), films.std((1, 2)), histograms])
    train, test, train_labels, test_labels = train_test_split(
        features, labels, test_size=0.3, stratify=labels, random_state=0
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(train, train_labels)
    assert model.score(test, test_labels) <= 0.70


def test_files_lie_in_class_folders(tmp_path: Path) -> None:
    files = write_phantoms(tmp_path, per_class=2, seed=7, size=32)
    assert [str(f.relative_to(tmp_path)) for f in files] == [
        f"{label}/phantom_{number:05d}.png" for label in CLASS_NAMES for number in (7, 8)
    ]
    with Image.open(files[0]) as image:
        assert (image.mode, image.size) == ("L", (32, 32))
