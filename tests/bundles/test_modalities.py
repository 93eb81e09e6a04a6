"""What single modalities need beyond the table: windows of CT in Hounsfield units, grades in their order."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.errors import CheckpointError, ConfigError, DataError
from medmamba_monai.metrics import SCORE_NAMES

from .conftest import PICTURES, BundleCopy, copy_bundle

FAT, LIVER = -100.0, 60.0


def hounsfield(inside: float, seed: int) -> np.ndarray:
    """A slice (40, 48) of air with a body of ``inside`` HU, an ellipse of its own, and whole-numbered noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:40, :48]
    height, width = rng.uniform(6, 15, 2)
    row, column = rng.uniform(15, 25), rng.uniform(15, 33)
    body = ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 < 1
    noise = rng.integers(-20, 20, (40, 48))
    return np.where(body, inside + noise, -1000.0)


def write_dicom(path: Path, values: np.ndarray) -> None:
    """A CT slice as scanners store it: unsigned 12 bits, an offset of -1024, and a bone window of its own."""
    header = FileMetaDataset()
    header.TransferSyntaxUID, header.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    header.MediaStorageSOPInstanceUID = generate_uid()
    item = Dataset()
    item.file_meta = header
    item.SOPClassUID, item.SOPInstanceUID = CTImageStorage, header.MediaStorageSOPInstanceUID
    item.Modality, item.PhotometricInterpretation, item.SamplesPerPixel = "CT", "MONOCHROME2", 1
    item.Rows, item.Columns = values.shape
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 12, 11, 0
    item.RescaleSlope, item.RescaleIntercept = 1, -1024
    item.WindowCenter, item.WindowWidth = 300, 1500
    item.PixelData = (values + 1024).astype(np.uint16).tobytes()
    pydicom.dcmwrite(path, item, enforce_file_format=True)


def write_film(path: Path, values: np.ndarray, inverted: bool = False) -> None:
    """A digital radiograph of 12 bits with a window; ``inverted``: as MONOCHROME1, where large values are dark."""
    write_dicom(path, values - 1024)
    item = pydicom.dcmread(path)
    item.Modality, item.SOPClassUID = "DX", DigitalXRayImageStorageForPresentation
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID
    item.RescaleIntercept, item.WindowCenter, item.WindowWidth = 0, 2048, 4096
    if inverted:
        item.PhotometricInterpretation = "MONOCHROME1"
        item.PixelData = (4095 - values).astype(np.uint16).tobytes()
    item.save_as(path)


def write_nifti(path: Path, values: np.ndarray) -> None:
    """Axial slices (rows, columns[, slices]): NIfTI's first axis runs to the patient's left here, its second back."""
    import nibabel

    voxels = np.atleast_3d(values).transpose(1, 0, 2).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])), path)


@pytest.fixture
def ct(tmp_path: Path) -> BundleCopy:
    """The CT bundle with two classes that differ in density alone, half DICOM, half NIfTI."""
    bundle = copy_bundle("abdominal_ct_classification", tmp_path, per_class=1)
    shutil.rmtree(bundle.data)
    for name, inside in (("fat", FAT), ("liver", LIVER)):
        (bundle.data / name).mkdir(parents=True)
        for index in range(8):
            values = hounsfield(inside, seed=index)
            if index % 2:
                write_nifti(bundle.data / name / f"{index}.nii.gz", values)
            else:
                write_dicom(bundle.data / name / f"{index}.dcm", values)
    return bundle


def test_ct_is_windowed_alike_whatever_the_file(ct: BundleCopy) -> None:
    flow = ct.workflow("inference", classes=["fat", "liver"], model_info={}, image_size=[40, 48])
    reader, *_ = flow.parser.get_parsed_content("preprocessing").transforms
    for name, inside in (("fat", FAT), ("liver", LIVER)):
        for file in (f"{name}/0.dcm", f"{name}/1.nii.gz"):
            expected = np.clip((hounsfield(inside, int(Path(file).stem[0])) + 160) / 400, 0, 1)
            item = reader({"image": str(ct.data / file)})
            np.testing.assert_allclose(item["image"].numpy()[0], expected, atol=1e-6, err_msg=file)
            whole = flow.parser.get_parsed_content("preprocessing")({"image": str(ct.data / file)})["image"]
            np.testing.assert_allclose(whole.numpy()[0], (expected - 0.5) / 0.25, atol=1e-5, err_msg=file)


def test_ct_trains_evaluates_and_predicts_from_dicom_and_nifti(ct: BundleCopy, tmp_path: Path) -> None:
    ct.run("train")
    ct.run("evaluate", **PICTURES)
    ct.run("inference", output_dir=str(tmp_path))
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        predicted = {row["file"]: float(row["liver"]) for row in csv.DictReader(file)}
    assert len(predicted) == 16
    with pytest.raises((RuntimeError, CheckpointError)) as caught:
        ct.run("inference", output_dir=str(tmp_path / "lung"), window=[-600, 1500])
    reason = root_cause(caught.value)
    assert isinstance(reason, CheckpointError)
    assert "preprocessing" in str(reason)


def test_a_volume_needs_a_slice_to_be_chosen(ct: BundleCopy) -> None:
    volume = np.stack([hounsfield(inside, 0) for inside in (FAT, LIVER, FAT)], axis=2)
    shutil.rmtree(ct.data)
    written = {}
    for name in ("fat", "liver"):
        (ct.data / name).mkdir(parents=True)
        for index in range(8):
            noisy = volume + np.random.default_rng([index, len(name)]).normal(0, 300, volume.shape).round()
            written[f"{name}/{index}"] = noisy
            write_nifti(ct.data / name / f"{index}.nii.gz", noisy)
    with pytest.raises((RuntimeError, DataError)) as caught:
        ct.run("train")
    assert "frame" in str(root_cause(caught.value))
    flow = ct.workflow("train", frame="middle", window="[40, 400]")
    with pytest.raises((RuntimeError, ConfigError)) as caught:
        flow.initialize()
    assert "window must be null or a list of a centre and a width" in str(root_cause(caught.value))
    flow = ct.workflow("train", frame="middle")
    reader = flow.parser.get_parsed_content("preprocessing").transforms[0]
    values = reader({"image": str(ct.data / "fat" / "0.nii.gz")})["image"].numpy()[0]
    np.testing.assert_allclose(values, np.clip((written["fat/0"][..., 1] + 160) / 400, 0, 1), atol=1e-6)


def test_dicom_films_in_predictions_out(tmp_path: Path) -> None:
    bundle = copy_bundle("chest_xray_classification", tmp_path, per_class=1)
    shutil.rmtree(bundle.data)
    rng = np.random.default_rng(0)
    for name, width in (("normal", 3), ("pneumonia", 9)):
        (bundle.data / name / "study").mkdir(parents=True)
        for index in range(8):
            stripes = 1500.0 + 900 * ((np.arange(56)[:, None] // width) % 2) + rng.integers(0, 300, (56, 48))
            for kind in ("film", "same, inverted") if index == 0 else ("film",):
                # archives name files by UID, without a suffix
                file = f"1.2.{index}.{len(kind)}" if index % 2 else f"{index} {kind}.dcm"
                write_film(bundle.data / name / "study" / file, stripes, inverted=index == 1 or "inverted" in kind)
    bundle.run("train")
    bundle.run("evaluate", **PICTURES)
    metrics = json.loads((bundle.root / "eval" / "metrics.json").read_text())
    assert metrics["n"] >= 2
    bundle.run("inference", output_dir=str(tmp_path / "out"))
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: float(row["pneumonia"]) for row in csv.DictReader(file)}
    assert len(rows) == 18
    for name in ("normal", "pneumonia"):
        pair = [rows[f"{name}/study/0 {kind}.dcm"] for kind in ("film", "same, inverted")]
        assert pair[0] == pytest.approx(pair[1], abs=1e-3)
    assert len({round(value, 6) for value in rows.values()}) > 12


def test_grades_are_taken_in_the_order_that_is_given(tmp_path: Path) -> None:
    bundle = copy_bundle("retinal_fundus_classification", tmp_path, per_class=6)
    grades = ["none", "mild", "severe"]
    for old, new in zip(["0 none", "1 mild", "3 severe"], grades, strict=True):
        (bundle.data / old).rename(bundle.data / new)
    for rest in ("2 moderate", "4 proliferative"):
        shutil.rmtree(bundle.data / rest)
    flow = bundle.run("train", class_names=grades, **{"loss::distance": 0.25})
    assert flow.parser.get_parsed_content("loss").distance == 0.25
    bundle.run("evaluate", class_names=grades)
    metrics = json.loads((bundle.root / "eval" / "metrics.json").read_text())
    assert metrics["class_names"] == grades
    assert set(SCORE_NAMES) <= set(metrics)
    labels = {item["image"]: item["label"] for item in json.loads(_datalist(bundle))["training"]}
    assert all(label == grades.index(file.split("/")[0]) for file, label in labels.items())


def _datalist(bundle: BundleCopy) -> str:
    return (bundle.root / "eval" / "datalist.json").read_text()
