"""Volumes through the brain MRI bundle: whatever the file, one tensor; whatever is wrong, one message."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.data.phantom_volume import phantom_head, write_nifti, write_series
from medmamba_monai.errors import CheckpointError, DataError, MedMambaError

from .conftest import PICTURES, VOLUME, BundleCopy, copy_bundle


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> BundleCopy:
    """The bundle after one epoch on a few heads; tests must not change it."""
    bundle = copy_bundle("brain_mri_classification", tmp_path_factory.mktemp("brain"), per_class=6)
    bundle.run("train")
    return bundle


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def refused(kind: type[MedMambaError], bundle: BundleCopy, mode: str, **overrides: Any) -> str:
    with pytest.raises((RuntimeError, MedMambaError)) as caught:
        bundle.run(mode, **overrides)
    reason = root_cause(caught.value)
    assert isinstance(reason, kind), reason
    return str(reason)


def test_one_head_is_predicted_alike_from_every_file(trained: BundleCopy, tmp_path: Path) -> None:
    volume, affine = phantom_head("wide", 77)
    new = tmp_path / "new"
    (new / "deep" / "er").mkdir(parents=True)
    write_nifti(new / "a.nii", volume, affine, "RAS")
    write_nifti(new / "deep" / "b.nii.gz", volume, affine, "SLP")
    write_series(new / "deep" / "er" / "c", volume, affine)
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32) * 3.5, affine), new / "units.nii.gz")
    other = phantom_head("narrow", 78)
    write_nifti(new / "z.nii", *other)
    trained.run("inference", dataset_dir=str(new), output_dir=str(tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    assert list(rows) == ["a.nii", "deep/b.nii.gz", "deep/er/c", "units.nii.gz", "z.nii"]
    scores = [float(row["male"]) for row in rows.values()]
    np.testing.assert_allclose(scores[:4], scores[0], atol=1e-4)
    assert abs(scores[4] - scores[0]) > 1e-3, "another head makes no difference"


def test_a_folder_that_is_a_series_is_one_volume(trained: BundleCopy, tmp_path: Path) -> None:
    write_series(tmp_path / "P1", *phantom_head("wide", 5))
    trained.run("inference", dataset_dir=str(tmp_path / "P1"), output_dir=str(tmp_path / "out"))
    assert list(rows_of(tmp_path / "out")) == ["P1"]


def test_training_prepares_volumes_as_inference_does(trained: BundleCopy) -> None:
    flow, inference = trained.workflow("train"), trained.workflow("inference")
    flow.initialize()
    train = flow.parser.get_parsed_content("train::preprocessing").transforms
    prepare = inference.parser.get_parsed_content("preprocessing")
    random = flow.parser["train"]["random_transforms"]
    steps = [type(step).__name__ for step in prepare.transforms]
    expected = [*steps[:-1], *(entry["_target_"].rpartition(".")[2] for entry in random), steps[-1]]
    assert [type(step).__name__ for step in train] == expected
    for step in train:
        if hasattr(step, "prob"):
            step.prob = 0.0
    for step in train:
        if hasattr(step, "rand_affine"):
            step.rand_affine.prob = 0.0
    items = flow.parser.get_parsed_content("train::dataset").data
    for item in items[:4]:
        assert torch.equal(
            flow.parser.get_parsed_content("train::preprocessing")(item)["image"], prepare(item)["image"]
        )


def test_heads_keep_their_proportions_and_sides(trained: BundleCopy) -> None:
    """A voxel is 5 mm in every direction, rows run to the back, columns to the left, slices up."""
    prepare = trained.workflow("inference").parser.get_parsed_content("preprocessing")
    image = prepare({"image": str(trained.data / "male" / "head1.nii.gz")})["image"][0].numpy()
    assert image.shape == tuple(VOLUME["image_size"])
    inside = image > -1.5
    lengths = [np.ptp(np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))) + 1 for axis in range(3)]
    np.testing.assert_allclose(lengths, np.array([190, 150, 144]) / 5, atol=4)
    middle = [(length - 1) / 2 for length in image.shape]
    dark = np.argwhere((image < -0.4) & (image > -1.5))
    centre = dark.mean(axis=0) - middle
    assert abs(centre[0]) < 2 and abs(centre[2]) < 3
    place = [round(m) for m in (middle[0], middle[1] + 8, middle[2])]  # the mark on the left, 40 mm from the middle
    mirrored = [place[0], image.shape[1] - 1 - place[1], place[2]]
    around = [slice(p - 1, p + 2) for p in place], [slice(p - 1, p + 2) for p in mirrored]
    assert image[tuple(around[0])].min() < image[tuple(around[1])].min()


def test_the_digest_needs_nothing_but_the_json(trained: BundleCopy) -> None:
    config = json.loads((trained.root / "configs" / "inference.json").read_text()) | VOLUME
    config["spatial_size"] = config["image_size"]

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return plain(config[value[1:]]) if isinstance(value, str) and value.startswith("@") else value

    text = json.dumps(plain(config["preprocessing"]), sort_keys=True, separators=(",", ":"))
    info = json.loads((trained.root / "models" / "model.json").read_text())
    assert info["preprocessing_digest"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(("key", "value"), [("spacing", 4), ("orientation", "RAS"), ("window", [500, 1000])])
def test_another_preprocessing_is_refused(key: str, value: Any, trained: BundleCopy, tmp_path: Path) -> None:
    message = refused(CheckpointError, trained, "inference", output_dir=str(tmp_path), **{key: value})
    assert "preprocessing" in message


def test_a_table_of_series_keeps_patients_together(tmp_path: Path) -> None:
    bundle = copy_bundle("brain_mri_classification", tmp_path, per_class=1)
    shutil.rmtree(bundle.data)
    lines = ["file,label,patient_id"]
    for patient in range(10):
        label = ("narrow", "wide")[patient % 2]
        for visit in range(2):
            place = f"export/P{patient:02d}/visit{visit}"
            volume, affine = phantom_head(label, 2 * patient + visit)
            write_series(bundle.data / place, volume[..., ::4], affine @ np.diag([1, 1, 4, 1]))  # thick slices
            lines.append(f"{place},{label},P{patient:02d}")
    (bundle.data / "labels.csv").write_text("\n".join(lines))
    bundle.run("train", preset="nano")
    bundle.run("evaluate", **PICTURES)
    datalist = json.loads((bundle.root / "eval" / "datalist.json").read_text())
    parts = [{item["group"] for item in datalist[part]} for part in ("training", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10
    assert set(rows_of(bundle.root / "eval")) == {item["image"] for item in datalist["test"]}
    bundle.run("inference", output_dir=str(tmp_path / "out"))
    assert len(rows_of(tmp_path / "out")) == 20


def test_two_series_in_a_folder_are_told_apart(trained: BundleCopy, tmp_path: Path) -> None:
    volume, affine = phantom_head("wide", 9)
    write_series(tmp_path / "study" / "P1", volume, affine, "T1 sagittal")
    write_series(tmp_path / "T2", volume[::-1], affine, "T2")
    for file in (tmp_path / "T2").iterdir():
        file.rename(tmp_path / "study" / "P1" / f"b{file.name}")
    out = {"dataset_dir": str(tmp_path / "study"), "output_dir": str(tmp_path / "out")}
    message = refused(DataError, trained, "inference", **out)
    assert "holds 2 series" in message
    assert "T1 sagittal, 40" in message
    assert "series=" in message
    # the series is part of the preprocessing, so it is chosen in training already
    flow = trained.workflow("inference", series="T2", **out)
    image = flow.parser.get_parsed_content("preprocessing")({"image": str(tmp_path / "study" / "P1")})["image"]
    other = trained.workflow("inference", series="T1 sagittal", **out)
    first = other.parser.get_parsed_content("preprocessing")({"image": str(tmp_path / "study" / "P1")})["image"]
    assert not torch.equal(image, first)


WRONG = {
    "picture.png": "is 2-dimensional, 3 dimensions are needed",
    "slice.nii": "is a single slice (44 x 36 x 1), a volume is needed",
    "time.nii.gz": "is a series of 2 volumes, and one volume is needed",
    "one": "is a single slice (44 x 36 x 1), a volume is needed",
    "nowhere": "does not say how it lies in the patient",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_volume_ends_in_one_clear_message(name: str, trained: BundleCopy, tmp_path: Path) -> None:
    """Among good volumes, in training and in inference."""
    volume, affine = phantom_head("wide", 1)
    bundle = BundleCopy(trained.root, tmp_path / "data", trained.settings)
    shutil.copytree(trained.data, bundle.data)
    place = bundle.data / "male" / name
    if name == "picture.png":
        Image.fromarray(volume[..., 20].astype(np.uint8)).save(place)
    elif name == "slice.nii":
        write_nifti(place, volume[..., :1], affine, "PLS")
    elif name == "time.nii.gz":
        nibabel.save(nibabel.Nifti1Image(np.stack([volume, volume], axis=-1), affine), place)
    else:
        write_series(place, volume[..., : 1 if name == "one" else 40], affine)
    if name == "nowhere":
        for file in place.iterdir():
            dataset = pydicom.dcmread(file)
            del dataset.ImagePositionPatient
            dataset.save_as(file)
    elsewhere = {"ckpt_dir": str(tmp_path / "models"), "output_dir": str(tmp_path / "out")}
    message = refused(DataError, bundle, "train", **elsewhere)
    assert WRONG[name] in message
    assert f"male/{name}" in message
    assert not (tmp_path / "models").exists()
    del elsewhere["ckpt_dir"]
    assert WRONG[name] in refused(DataError, bundle, "inference", dataset_dir=str(place.parent), **elsewhere)


def test_pictures_alone_and_loose_slices_are_refused(trained: BundleCopy, tmp_path: Path) -> None:
    data = tmp_path / "loose"
    for name in ("a", "b"):
        write_series(data / name, *phantom_head("wide", 1))
    message = refused(DataError, trained, "train", dataset_dir=str(data), output_dir=str(tmp_path / "out"))
    assert "put each series into a folder of its own" in message


def test_volumes_of_a_medmnist_file_are_taken_as_stored(tmp_path: Path) -> None:
    bundle = copy_bundle("brain_mri_classification", tmp_path, per_class=1)
    shutil.rmtree(bundle.data)
    bundle.data.mkdir()
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 8), ("val", 4), ("test", 4)):
        arrays[f"{part}_labels"] = np.arange(count)[:, None] % 2
        arrays[f"{part}_images"] = rng.integers(0, 99, (count, 28, 28, 28), np.uint8)
        arrays[f"{part}_images"][1::2, 8:20, 8:20, 8:20] += 100
    np.savez(bundle.data / "vessels3d.npz", **arrays)
    assert "orientation=null" in refused(DataError, bundle, "train")
    assert "spacing=null" in refused(DataError, bundle, "train", orientation=None)
    stored = {"orientation": None, "spacing": None, "image_size": 32}
    bundle.run("train", **stored)
    bundle.run("evaluate", **{**stored, **PICTURES, "image_size": ...})
    assert len(rows_of(bundle.root / "eval")) == 4


@pytest.mark.slow
def test_the_size_of_ventricles_is_learnt(tmp_path: Path) -> None:
    bundle = copy_bundle("brain_mri_classification", tmp_path, per_class=30)
    bundle.run("train", epochs=12)
    bundle.run("evaluate")
    metrics = json.loads((bundle.root / "eval" / "metrics.json").read_text())
    assert metrics["n"] == 9
    assert metrics["auc"] > 0.9


@pytest.mark.slow
def test_real_heads_are_predicted(trained: BundleCopy, shared: Path, tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    heads.mkdir()
    for name in ("pd_chris", "t1gd_skullstripped", "monai_anatomical", "mra_chris", "pcasl_4d"):
        (heads / f"{name}.nii.gz").symlink_to(shared / "data" / "brain_mri_3d" / f"{name}.nii.gz")
    (heads / "series").symlink_to(shared / "data" / "dicom" / "series_torchio")
    (heads / "abdomen.nii.gz").symlink_to(shared / "data" / "abdominal_ct_3d" / "example_mr_sm.nii.gz")
    out = {"dataset_dir": str(heads), "output_dir": str(tmp_path / "out")}
    assert "pcasl_4d.nii.gz: is a series of 10 volumes" in refused(DataError, trained, "inference", **out)
    (heads / "pcasl_4d.nii.gz").unlink()
    trained.run("inference", **out)
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 6
    assert "series" in rows
    assert len({row["male"] for row in rows.values()}) == 6
