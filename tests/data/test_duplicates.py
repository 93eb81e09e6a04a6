"""Copies of pictures: found once, kept, expanded over splits and groups; the real packs hold those that one can see."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.data import duplicates
from medmamba_monai.data.duplicates import Duplicates, Pair, find_duplicates, fingerprint
from medmamba_monai.data.files import scan_images
from medmamba_monai.data.npz import member_names
from medmamba_monai.data.phantom import write_phantoms
from medmamba_monai.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten smooth pictures 0.png to 9.png."""
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    root.mkdir()
    for index in range(10):
        picture = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        picture.resize((96, 80), Image.Resampling.BICUBIC).save(root / f"{index}.png")
    return root


def files_of(root: Path) -> list[str]:
    return [path.name for path in root.iterdir()]


def test_copies_of_both_kinds(folder: Path) -> None:
    assert find_duplicates(folder, files_of(folder)) == Duplicates(10)
    for name in ("a.png", "b.png"):
        shutil.copy(folder / "0.png", folder / name)
    Image.open(folder / "0.png").transpose(Image.Transpose.ROTATE_90).save(folder / "c.jpg", quality=85)
    found = find_duplicates(folder, files_of(folder), workers=3)
    assert found.exact == [["0.png", "a.png", "b.png"]]
    assert [pair[:2] for pair in found.near] == [("0.png", "c.jpg")]
    assert found.clusters() == [["0.png", "a.png", "b.png", "c.jpg"]]


def test_pictures_that_show_nothing_or_little(folder: Path) -> None:
    for name in ("black.png", "black too.png"):
        Image.new("L", (64, 64), 0).save(folder / name)
    rng = np.random.default_rng(1)
    tiny = Image.fromarray(rng.integers(0, 256, (12, 40), dtype=np.uint8))
    tiny.save(folder / "tiny.png")
    tiny.save(folder / "tiny.bmp")
    shutil.copy(folder / "tiny.png", folder / "tiny too.png")
    assert find_duplicates(folder, files_of(folder)).clusters() == [["tiny too.png", "tiny.png"]]


def test_what_cannot_be_read_is_compared_by_its_bytes(folder: Path) -> None:
    (folder / "a.npy").write_bytes(b"something else")
    (folder / "b.npy").write_bytes(b"something else")
    (folder / "empty.png").write_bytes(b"")
    (folder / "empty too.png").write_bytes(b"")
    found = find_duplicates(folder, files_of(folder))
    assert found.unread == ["a.npy", "b.npy", "empty too.png", "empty.png"]
    assert found.exact == [["a.npy", "b.npy"]]


def test_members_of_an_archive(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", train_images=images, test_images=np.stack([images[3], images[0][:, ::-1]]))
    files = [f"x.npz#{member}" for member in ("train/0", "train/1", "train/3", "test/0", "test/1")]
    found = find_duplicates(tmp_path / "x.npz", files)
    assert found.exact == [["x.npz#test/0", "x.npz#train/3"]]
    assert [pair[:2] for pair in found.near] == [("x.npz#test/1", "x.npz#train/0")]


def test_volumes_are_compared_by_their_middle(tmp_path: Path) -> None:
    import nibabel

    rng = np.random.default_rng(0)
    volumes = [rng.normal(size=(5, 5, 9)).repeat(8, 0).repeat(8, 1).astype(np.float32) for _ in range(3)]
    for name, volume in (("a", volumes[0]), ("b", volumes[1]), ("c", 3 * volumes[0])):
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{name}.nii.gz")
    found = find_duplicates(tmp_path, ["a.nii.gz", "b.nii.gz", "c.nii.gz"])
    assert [pair[:2] for pair in found.near] == [("a.nii.gz", "c.nii.gz")]
    assert not found.exact


def test_the_result_is_kept_until_a_file_changes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(folder / "0.png", folder / "a.png")
    files = files_of(folder)
    first = find_duplicates(folder, files, cache_dir=tmp_path / "out")
    reads: list[str] = []
    read = duplicates.read_image
    monkeypatch.setattr(duplicates, "read_image", lambda path: reads.append(path) or read(path))
    assert find_duplicates(folder, files[::-1], cache_dir=tmp_path / "out") == first
    assert reads == []
    assert find_duplicates(folder, files[1:], cache_dir=tmp_path / "out").images == 10
    assert len(reads) == 10
    find_duplicates(folder, files, cache_dir=tmp_path / "out")
    os.utime(folder / "3.png", ns=(1, 1))
    find_duplicates(folder, files, cache_dir=tmp_path / "out")
    assert len(reads) == 32
    for damaged in ("", "[]", json.dumps({"key": "x"}), json.dumps({"key": "x", "more": 1})):
        (tmp_path / "out" / "duplicates.json").write_text(damaged)
        assert find_duplicates(folder, files, cache_dir=tmp_path / "out") == first
    with pytest.raises(DataError, match="cannot be written"):
        find_duplicates(folder, files, cache_dir="/proc/nowhere")


def test_pairs_hide_no_leak_behind_a_copy_in_the_same_split() -> None:
    found = Duplicates(7, exact=[["a", "b", "c"], ["x", "y"]], near=[("a", "x", 0.95), ("m", "n", 0.93)])
    where = {"a": "training", "b": "training", "c": "test", "x": "training", "y": "validation"}
    where |= {"m": "test", "n": "test"}
    pairs = list(found.pairs(where))
    assert pairs == [
        Pair(("a", "b"), "exact", 1.0),
        Pair(("a", "c"), "exact", 1.0),
        Pair(("x", "y"), "exact", 1.0),
        Pair(("a", "y"), "near", 0.95),
        Pair(("c", "x"), "near", 0.95),
        Pair(("c", "y"), "near", 0.95),
        Pair(("m", "n"), "near", 0.93),
    ]


def test_groups_are_joined_through_chains() -> None:
    found = Duplicates(6, exact=[["a", "c"]], near=[("c", "e", 0.95), ("f", "not in the list", 0.99)])
    joined = found.joined(["a", "b", "c", "d", "e", "f"], ["P", "P", "Q", "R", "S", "T"])
    assert joined[0] == joined[1] == joined[2] == joined[4]
    assert len({joined[0], joined[3], joined[5]}) == 3
    assert found.joined(["b", "d"], [1, 2]) == [1, 2]


def test_a_blank_picture_has_no_fingerprint() -> None:
    assert fingerprint("x.npz#train/0", np.zeros((1, 32, 32), np.float32)).digest is None
    noise = np.random.default_rng(0).random((1, 32, 32), np.float32)
    assert fingerprint("x.npz#train/0", noise).digest == fingerprint("y.npz#train/7", noise).digest


def test_phantoms_are_no_copies(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 150, size=64)
    files = [relative for relative, _ in scan_images(tmp_path)]
    assert find_duplicates(tmp_path, files) == Duplicates(300)


EXPECTED = {
    "abdominal_ct": [
        {f"abdomenct/{number}.jpeg" for number in pair}
        for pair in (("004919", "005242"), ("008390", "008650"), ("006370", "006786"), ("003127", "003286"))
    ],
    "blood_cell": [{"lymphocyte/d1_112.png", "lymphocyte/d1_139.png"}],
    "chest_xray": [],
    "dermatoscopy": [],
    "endoscopy": [],
    "fundus": [
        {"moderate/Patient299_L.jpg", "severe/Patient300_L.jpg"},
        {"moderate/Patient299_R.jpg", "severe/Patient300_R.jpg"},
        {"mild/Patient058_R.jpg", "no_dr/Patient155_R.jpg"},
    ],
    "histopathology": [],
    "retinal_oct": [],
    "ultrasound": [
        {"malignant/malignant_4.jpg", "malignant/malignant_5.jpg"},
        {f"normal/normal_{number}.jpg" for number in (55, 57, 67, 68)},
    ],
}  # each was looked at: the same picture, the next frame or slice, or the same eye photographed twice


@pytest.mark.parametrize("pack", EXPECTED)
def test_real_packs_hold_the_copies_that_one_can_see(shared: Path, pack: str) -> None:
    root = shared / "data" / pack
    found = find_duplicates(root, [relative for relative, _ in scan_images(root)], workers=1)
    assert sorted(map(sorted, found.clusters())) == sorted(map(sorted, EXPECTED[pack]))
    assert not found.unread


def test_an_official_split_that_leaks(shared: Path) -> None:
    root = shared / "data" / "medmnist"
    name = "pneumoniamnist_half.npz"
    found = find_duplicates(root, [f"{name}#{member}" for member in member_names(root / name)])
    pairs = found.pairs({f"{name}#{m}": m.split("/")[0] for m in member_names(root / name)})
    across = {p.files for p in pairs if p.files[0].split("/")[0] != p.files[1].split("/")[0]}
    arrays = np.load(root / name)
    for files in across:
        one, other = (arrays[f"{f.split('#')[1].split('/')[0]}_images"][int(f.split("/")[1])] for f in files)
        assert np.array_equal(one, other)
    assert len(across) == 3
