"""Folders of DICOM slices and multi-frame objects as volumes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medmamba_monai.data.image import read_image
from medmamba_monai.errors import DataError

VOLUME = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)  # rows, columns, slices
UID = generate_uid()


def _dataset(pixels: np.ndarray, **elements: Any) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 1
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.Modality, dataset.SeriesInstanceUID, dataset.PixelSpacing = "CT", UID, [0.5, 0.75]
    dataset.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def _save_series(folder: Path, volume: np.ndarray = VOLUME, prefix: str = "", **elements: Any) -> Path:
    """Slices 2.5 mm apart from feet to head, under shuffled names and with reversed instance numbers."""
    folder.mkdir(exist_ok=True)
    names = [f"{prefix}{index:03d}" for index in range(volume.shape[-1])]
    random.Random(0).shuffle(names)
    for index, name in enumerate(names):
        extra = {
            "ImagePositionPatient": [-10.0, -20.0, 5 + 2.5 * index],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "InstanceNumber": volume.shape[-1] - index,
        } | elements
        pydicom.dcmwrite(folder / name, _dataset(volume[..., index], **extra), enforce_file_format=True)
    return folder


def test_sorted_by_position_whatever_names_and_numbers_say(tmp_path: Path) -> None:
    image = read_image(_save_series(tmp_path / "s"), scale=None)
    np.testing.assert_array_equal(image.array[0], VOLUME)
    np.testing.assert_allclose(image.meta["spacing"], [0.5, 0.75, 2.5])
    # voxel (0, 0, 0) lies at (-10, -20, 5) in DICOM's left-posterior-superior millimetres
    np.testing.assert_allclose(image.meta["affine"] @ [0, 0, 0, 1], [10, 20, 5, 1])
    np.testing.assert_allclose(image.meta["affine"] @ [2, 4, 6, 1], [10 - 3, 20 - 1, 20, 1])
    assert nibabel.aff2axcodes(image.meta["affine"]) == ("P", "L", "S")
    assert image.meta["slices"] == 7


def test_same_voxels_as_a_nifti_of_the_same_patient(tmp_path: Path) -> None:
    folder = _save_series(tmp_path / "s")
    ours = read_image(folder, scale=None)
    for code in ("RAS", "PLS", "IPL"):
        turned = read_image(folder, scale=None, orientation=code)
        nibabel.save(nibabel.Nifti1Image(turned.array[0], turned.meta["affine"]), tmp_path / "x.nii")
        again = read_image(tmp_path / "x.nii", scale=None)
        np.testing.assert_array_equal(again.array, ours.array)
        np.testing.assert_allclose(again.meta["affine"], ours.meta["affine"], atol=1e-5)


def test_missing_instance_numbers_do_not_matter_with_positions(tmp_path: Path) -> None:
    image = read_image(_save_series(tmp_path / "s", InstanceNumber=""), scale=None)
    np.testing.assert_array_equal(image.array[0], VOLUME)


def test_without_positions_the_instance_number_counts(tmp_path: Path) -> None:
    folder = _save_series(tmp_path / "s", ImagePositionPatient="")
    np.testing.assert_array_equal(read_image(folder, scale=None).array[0], VOLUME[..., ::-1])
    folder = _save_series(tmp_path / "t", ImagePositionPatient="", InstanceNumber="")
    with pytest.raises(DataError, match="neither positions nor different instance numbers"):
        read_image(folder)


def test_distances_that_the_files_do_not_say_are_not_invented(tmp_path: Path) -> None:
    image = read_image(_save_series(tmp_path / "s", ImagePositionPatient=""))
    assert "spacing" not in image.meta
    assert "affine" not in image.meta
    thick = read_image(_save_series(tmp_path / "t", ImagePositionPatient="", SliceThickness=4))
    assert thick.meta["spacing"] == [0.5, 0.75, 4.0]
    no_pixels = read_image(_save_series(tmp_path / "u", PixelSpacing=None))
    assert "spacing" not in no_pixels.meta
    assert nibabel.aff2axcodes(no_pixels.meta["affine"]) == ("P", "L", "S")


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    folder = _save_series(tmp_path / "s", VOLUME[..., :1])
    assert read_image(folder).array.shape == (1, 5, 6, 1)
    with pytest.raises(DataError, match=r"is a single slice \(5 x 6 x 1\), a volume is needed"):
        read_image(folder, spatial_dims=3)


def test_two_series_are_told_apart(tmp_path: Path) -> None:
    folder = _save_series(tmp_path / "s", SeriesDescription="native")
    other = generate_uid()
    _save_series(folder, VOLUME + 1, prefix="b", SeriesInstanceUID=other, SeriesDescription="contrast")
    with pytest.raises(DataError, match=r"holds 2 series \(2 fit\): .*native, 7.*contrast, 7.*series='...'"):
        read_image(folder)
    np.testing.assert_array_equal(read_image(folder, series="contrast", scale=None).array[0], VOLUME + 1)
    np.testing.assert_array_equal(read_image(folder, series=UID, scale=None).array[0], VOLUME)
    with pytest.raises(DataError, match=r"\(0 fit\)"):
        read_image(folder, series="delayed")


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    folder = _save_series(tmp_path / "s")
    (folder / "README.txt").write_text("x")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    report = _dataset(VOLUME[..., 0], Rows=None, Columns=None, PixelData=None, SeriesInstanceUID=generate_uid())
    pydicom.dcmwrite(folder / "report", report, enforce_file_format=True)
    np.testing.assert_array_equal(read_image(folder, scale=None).array[0], VOLUME)


def test_missing_doubled_and_foreign_slices(tmp_path: Path) -> None:
    folder = _save_series(tmp_path / "s")
    by_position = {float(pydicom.dcmread(p).ImagePositionPatient[2]): p for p in folder.iterdir()}
    by_position[12.5].rename(tmp_path / "aside")
    with pytest.raises(DataError, match=r"misses slices between .* \(5.00 mm, others 2.50 mm\)"):
        read_image(folder)
    (tmp_path / "aside").rename(by_position[12.5])
    (folder / "copy").write_bytes(by_position[12.5].read_bytes())
    with pytest.raises(DataError, match="two slices at one position"):
        read_image(folder)
    (folder / "copy").unlink()
    scout = _dataset(np.zeros((9, 9), np.int16), ImagePositionPatient=[0, 0, 0])
    pydicom.dcmwrite(folder / "zz", scout, enforce_file_format=True)
    with pytest.raises(DataError, match=r"mixes sizes: .*\(9, 9\) \(zz\)"):
        read_image(folder)
    turned = _dataset(VOLUME[..., 0], ImagePositionPatient=[0, 0, 99], ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    pydicom.dcmwrite(folder / "zz", turned, enforce_file_format=True)
    with pytest.raises(DataError, match="mixes orientations"):
        read_image(folder)


def test_rescale_of_each_slice_and_one_window(tmp_path: Path) -> None:
    folder = _save_series(tmp_path / "s", RescaleSlope=2, RescaleIntercept=-50, WindowCenter=100, WindowWidth=401)
    expected = np.clip((VOLUME * 2.0 - 50 - 99.5) / 400 + 0.5, 0, 1)
    np.testing.assert_allclose(read_image(folder).array[0], expected, atol=1e-6)
    windowed = read_image(folder, window=(0, 1000)).array[0]
    np.testing.assert_allclose(windowed, np.clip((VOLUME * 2.0 - 50) / 1000 + 0.5, 0, 1), atol=1e-6)
    one = next(folder.iterdir())
    changed = pydicom.dcmread(one)
    changed.WindowCenter = 7
    changed.save_as(one)
    values = VOLUME * 2.0 - 50
    # slices with windows of their own have no common grey scale: the volume's range counts
    np.testing.assert_allclose(read_image(folder).array[0], (values - values.min()) / np.ptp(values), atol=1e-6)


def test_padding_of_a_volume(tmp_path: Path) -> None:
    volume = VOLUME.copy()
    volume[0, :, 2] = -2000
    folder = _save_series(tmp_path / "s", volume, PixelPaddingValue=-2000)
    array = read_image(folder, orientation="RAS").array[0]
    turned = read_image(folder).array[0]
    assert not turned[0, :, 2].any()
    np.testing.assert_array_equal(np.swapaxes(array, 0, 1)[::-1, ::-1], turned)


def test_empty_folder_and_too_many_voxels(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    with pytest.raises(DataError, match="holds no DICOM slices"):
        read_image(tmp_path / "e")
    with pytest.raises(DataError, match="claims 5 x 6 x 7 pixels, more than the limit of 100"):
        read_image(_save_series(tmp_path / "s"), max_pixels=100)


def test_a_volume_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is 3-dimensional, 2 dimensions are needed"):
        read_image(_save_series(tmp_path / "s"), spatial_dims=2)


def test_multiframe_as_volume(tmp_path: Path) -> None:
    frames = np.moveaxis(VOLUME, -1, 0)
    plain = _dataset(np.ascontiguousarray(frames), NumberOfFrames=7, SpacingBetweenSlices=3.0)
    pydicom.dcmwrite(tmp_path / "x.dcm", plain, enforce_file_format=True)
    with pytest.raises(DataError, match=r"does not say how it lies in the patient.*orientation=null"):
        read_image(tmp_path / "x.dcm", spatial_dims=3)
    image = read_image(tmp_path / "x.dcm", spatial_dims=3, scale=None, orientation=None)
    np.testing.assert_array_equal(image.array[0], VOLUME)
    assert image.meta["spacing"] == [0.5, 0.75, 3.0]
    groups = []
    for index in range(7):  # stored from head to feet
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [0.0, 0.0, 30.0 - 3 * index]
        group.PlanePositionSequence = [position]
        groups.append(group)
    shared_group, orientation = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared_group.PlaneOrientationSequence = [orientation]
    enhanced = _dataset(
        np.ascontiguousarray(frames),
        NumberOfFrames=7,
        PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=[shared_group],
    )
    pydicom.dcmwrite(tmp_path / "y.dcm", enhanced, enforce_file_format=True)
    image = read_image(tmp_path / "y.dcm", spatial_dims=3, scale=None)
    np.testing.assert_array_equal(image.array[0], VOLUME[..., ::-1])


def test_real_series(shared: Path) -> None:
    folder = shared / "data" / "dicom" / "series_torchio"
    slices = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    slices.sort(key=lambda item: float(item.ImagePositionPatient[2]))
    oracle = np.stack(
        [item.pixel_array * float(item.RescaleSlope) + float(item.RescaleIntercept) for item in slices], -1
    )
    image = read_image(folder, scale=None)
    assert image.array.shape == (1, 128, 88, 17)
    as_stored = read_image(folder, scale=None, orientation=None)
    np.testing.assert_array_equal(as_stored.array[0], oracle)
    first = [float(value) for value in slices[0].ImagePositionPatient]
    np.testing.assert_allclose(as_stored.meta["affine"][:3, 3], [-first[0], -first[1], first[2]])
    assert nibabel.aff2axcodes(image.meta["affine"]) == ("P", "L", "S")
    assert image.meta["spacing"] == pytest.approx([2.0, 2.0, 2.0])
