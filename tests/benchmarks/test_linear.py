"""The linear baseline learns what a line can tell and picks its strength on validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medmamba_monai.benchmarks import linear
from medmamba_monai.data.phantom import write_phantoms


def test_features_have_thumbnail_and_gradients(tmp_path: Path) -> None:
    files = write_phantoms(tmp_path, per_class=1, size=64)
    grey = linear.features(files, "grey")
    colour = linear.features(files, "rgb")
    assert grey.shape[0] == 2
    assert colour.shape[1] - grey.shape[1] == 2 * 16 * 16
    Image.fromarray(np.zeros((50, 70), np.uint8)).save(tmp_path / "flat.png")
    flat = linear.features([tmp_path / "flat.png"], "grey")
    assert np.abs(flat).max() == 0


def test_learns_a_linear_problem() -> None:
    rng = np.random.default_rng(0)
    direction = rng.normal(size=20)

    def part(n: int) -> tuple[np.ndarray, list[int]]:
        x = rng.normal(size=(n, 20))
        return x, (x @ direction > 0).astype(int).tolist()

    test, labels = part(200)
    probabilities, strength = linear.fit_predict(part(300), part(100), test)
    assert probabilities.shape == (200, 2)
    assert (probabilities.argmax(1) == labels).mean() > 0.9
    assert strength > 0
