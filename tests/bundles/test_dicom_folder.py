"""DICOM in, predictions out: the same pictures as PNG and as DICOM objects of several kinds are predicted alike."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, UltrasoundImageStorage, generate_uid

from .conftest import BundleCopy


def write_dicom(path: Path, pixels: np.ndarray, kind: str) -> None:
    """An ultrasound frame of 8 bits: MONOCHROME2, MONOCHROME1 (inverted), RGB, or compressed."""
    header = FileMetaDataset()
    header.TransferSyntaxUID, header.MediaStorageSOPClassUID = ExplicitVRLittleEndian, UltrasoundImageStorage
    header.MediaStorageSOPInstanceUID = generate_uid()
    item = Dataset()
    item.file_meta = header
    item.SOPClassUID, item.SOPInstanceUID = UltrasoundImageStorage, header.MediaStorageSOPInstanceUID
    item.Modality, item.SamplesPerPixel = "US", 3 if kind == "RGB" else 1
    item.PhotometricInterpretation = kind if kind.startswith("MONO") or kind == "RGB" else "MONOCHROME2"
    item.Rows, item.Columns = pixels.shape
    item.BitsAllocated = item.BitsStored = 8
    item.HighBit, item.PixelRepresentation = 7, 0
    if kind == "RGB":
        item.PlanarConfiguration = 0
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    item.PixelData = (255 - pixels if kind == "MONOCHROME1" else pixels).tobytes()
    if len(item.PixelData) % 2:
        item.PixelData += b"\0"
    if kind == "RLE":
        item.compress(RLELossless, encoding_plugin="pydicom")
    pydicom.dcmwrite(path, item, enforce_file_format=True)


def rows(folder: Path) -> dict[str, list[str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {Path(row["file"]).stem: list(row.values())[2:] for row in csv.DictReader(file)}


def test_a_folder_of_dicom_files_is_predicted_as_its_pictures_are(fresh: BundleCopy, tmp_path: Path) -> None:
    fresh.run("train")
    for number, kind in enumerate(["MONOCHROME2", "MONOCHROME1", "RGB", "RLE"]):
        source = fresh.data / "benign" / f"{number}.png"
        study = tmp_path / "dicom" / f"study {number}"
        study.mkdir(parents=True)
        # files of archives often have no ending
        write_dicom(study / (f"{number}.dcm" if number % 2 else str(number)), np.array(Image.open(source)), kind)
        (tmp_path / "png").mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / "png")
    for kind in ("dicom", "png"):
        fresh.run("inference", dataset_dir=str(tmp_path / kind), output_dir=str(tmp_path / "out" / kind))
    expected, predicted = rows(tmp_path / "out" / "png"), rows(tmp_path / "out" / "dicom")
    assert sorted(predicted) == sorted(expected) == ["0", "1", "2", "3"]
    for name, values in expected.items():
        assert [float(v) for v in predicted[name]] == pytest.approx([float(v) for v in values], abs=1e-5)
    assert len({tuple(values) for values in expected.values()}) == 4
