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


def test_several_labels_an_image(tmp_path: Path) -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    entries, names = medmnist_entries(_write(tmp_path / "mine.npz", labels), task="multilabel")
    assert names == ["class_0", "class_1", "class_2"]
    assert [(entry.label, entry.findings) for entry in entries] == [
        ("class_0|class_2", ("class_0", "class_2")),
        ("", ()),
        ("class_1", ("class_1",)),
    ]


def test_chestmnist_has_fourteen_findings_in_their_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = {part: (rng.random((40, 14)) < 0.3).astype(np.uint8) for part in ("train", "val", "test")}
    arrays = {f"{part}_labels": flags for part, flags in labels.items()}
    arrays |= {f"{part}_images": np.zeros((40, 4, 4), np.uint8) for part in labels}
    np.savez(tmp_path / "chestmnist.npz", **arrays)
    datalist = build_datalist(tmp_path, task="multilabel")
    assert (datalist.class_names[0], datalist.class_names[13], datalist.task) == ("atelectasis", "hernia", "multilabel")
    for ours, theirs in (("training", "train"), ("validation", "val"), ("test", "test")):
        assert datalist.labels(ours) == labels[theirs].tolist()
    assert datalist.items("test", tmp_path)[3]["label"].dtype == np.float32


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((3, 1), np.int64), "class numbers are read with task multiclass"),
        (np.array([0, 1, 2]), "class numbers are read with task multiclass"),
        (np.array([[0, 2], [0, 1], [1, 0]]), "with values from 0 to 2"),
        (np.zeros((2, 3), np.int64), "for 3 images"),
    ],
)
def test_labels_that_are_not_several(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, train_images=np.zeros((3, 4, 4), np.uint8), train_labels=labels)
    with pytest.raises(DataError, match=message):
        medmnist_entries(path, task="multilabel")


def test_columns_of_labels_must_fit(tmp_path: Path) -> None:
    flags = np.array([[0, 1], [1, 0]])
    with pytest.raises(DataError, match="has 2 columns of labels, but chestmnist has 14 classes"):
        medmnist_entries(_write(tmp_path / "chestmnist.npz", flags), task="multilabel")
    more = {"val_images": np.zeros((1, 4, 4), np.uint8), "val_labels": np.array([[0, 1, 1]])}
    with pytest.raises(DataError, match="different numbers of label columns"):
        medmnist_entries(_write(tmp_path / "mine.npz", flags, **more), task="multilabel")
