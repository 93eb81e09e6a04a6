"""The MedMNIST source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medmamba_monai.data.builder import build_datalist
from medmamba_monai.data.medmnist import known_classes, medmnist_entries, verify_md5
from medmamba_monai.errors import DataError


def _write(path: Path, labels: np.ndarray, **more: np.ndarray) -> Path:
    images = np.zeros((len(labels), 4, 4), np.uint8)
    np.savez(path, train_images=images, train_labels=labels, **more)
    return path


def test_known_names() -> None:
    assert known_classes(Path("bloodmnist_224.npz")) == known_classes(Path("BloodMNIST.npz"))
    assert len(known_classes(Path("organmnist3d.npz")) or ()) == 11
    assert known_classes(Path("mine.npz")) is None
    assert known_classes(Path("pathmnistx.npz")) is None


def test_unknown_archives_get_numbered_classes(tmp_path: Path) -> None:
    entries, names = medmnist_entries(_write(tmp_path / "mine.npz", np.array([[2], [0], [1]])))
    assert names == ["class_0", "class_1", "class_2"]
    assert (entries[0].file, entries[0].label, entries[0].split) == ("mine.npz#train/0", "class_2", "training")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((3, 2), np.int64), r"train_labels is int64 \(3, 2\) for 3 images.*task multilabel"),
        (np.zeros((3, 1)), "train_labels is float64"),
        (np.array([0, -1, 0]), "one class number"),
    ],
)
def test_labels_that_are_no_class_numbers(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        medmnist_entries(_write(tmp_path / "mine.npz", labels))


def test_more_labels_than_the_known_set_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has label 2, but pneumoniamnist has 2 classes"):
        medmnist_entries(_write(tmp_path / "pneumoniamnist.npz", np.array([0, 1, 2])))


def test_missing_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", test_images=np.zeros((1, 2, 2)), test_labels=np.zeros(1, int))
    with pytest.raises(DataError, match="holds no train_images"):
        medmnist_entries(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", train_images=np.zeros((1, 2, 2)))
    with pytest.raises(DataError, match="has train_images and no train_labels"):
        medmnist_entries(tmp_path / "b.npz")


def test_official_splits_of_the_real_file(shared: Path) -> None:
    folder = shared / "data" / "medmnist"
    datalist = build_datalist(folder)
    oracle = np.load(folder / "pneumoniamnist_half.npz")
    assert datalist.class_names == ["normal", "pneumonia"]
    assert datalist.seed is None
    for ours, theirs in (("training", "train"), ("validation", "val"), ("test", "test")):
        assert datalist.labels(ours) == oracle[f"{theirs}_labels"][:, 0].tolist()
    assert Counter(record["image"] for record in datalist.test)["pneumoniamnist_half.npz#test/467"] == 1
    assert build_datalist(folder / "pneumoniamnist_half.npz").digest == datalist.digest


def test_md5_is_compared_on_request(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "medmnist"
    with pytest.raises(DataError, match=r"no official MD5 sum.*verify_md5=False"):
        build_datalist(folder, verify_md5=True)
    renamed = tmp_path / "pneumoniamnist.npz"
    renamed.write_bytes((folder / "pneumoniamnist_half.npz").read_bytes())
    with pytest.raises(DataError, match=r"official file has 28209eda62fecd6e6a2d98b1501bb15f.*verify_md5=False"):
        verify_md5(renamed)
    assert build_datalist(tmp_path).class_names == ["normal", "pneumonia"]
