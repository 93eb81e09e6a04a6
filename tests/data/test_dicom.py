"""DICOM pictures against pydicom's own decoding and lookup functions, and against hand-made truth."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from medmamba_monai.data.decoded import ReadOptions
from medmamba_monai.data.dicom import decode_dicom, number
from medmamba_monai.data.image import read_image
from medmamba_monai.errors import DataError

STORED = np.random.default_rng(0).integers(0, 4096, (6, 8)).astype(np.uint16)


def _save(path: Path, pixels: np.ndarray = STORED, **elements: Any) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = elements.pop("BitsStored", dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def test_window_of_the_file(tmp_path: Path) -> None:
    path = _save(tmp_path / "x", RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=[40, 300], WindowWidth=[400, 9])
    expected = np.clip((2.0 * STORED - 1024 - 39.5) / 399 + 0.5, 0, 1)
    image = read_image(path)
    np.testing.assert_allclose(image.array[0], expected, atol=1e-6)
    assert image.meta["window"] == [40.0, 400.0]
    np.testing.assert_allclose(read_image(path, scale=None).array[0], 2.0 * STORED - 1024)


def test_fixed_window_goes_first(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.dcm", RescaleIntercept=-1024, RescaleSlope=1, WindowCenter=1, WindowWidth=2)
    array = read_image(path, window=(40, 400)).array[0]
    np.testing.assert_allclose(array, np.clip((STORED - 1024.0 + 160) / 400, 0, 1), atol=1e-6)


def test_without_window_own_range_above_8_bits_and_type_up_to_8(tmp_path: Path) -> None:
    own = (STORED - STORED.min()) / np.ptp(STORED.astype(int))
    np.testing.assert_allclose(read_image(_save(tmp_path / "a.dcm")).array[0], own, atol=1e-6)
    small = (STORED >> 4).astype(np.uint8)
    np.testing.assert_allclose(read_image(_save(tmp_path / "b.dcm", small)).array[0], small / 255, atol=1e-6)
    six = (STORED >> 6).astype(np.uint8)
    path = _save(tmp_path / "c.dcm", six, BitsStored=6)
    np.testing.assert_allclose(read_image(path).array[0], six / 63, atol=1e-6)


def test_empty_elements_count_as_absent(tmp_path: Path) -> None:
    empty = {"RescaleSlope": None, "RescaleIntercept": None, "WindowCenter": None, "WindowWidth": None}
    path = _save(tmp_path / "x.dcm", **empty, PixelPaddingValue=None, PixelSpacing=None, VOILUTFunction=None)
    np.testing.assert_array_equal(read_image(path, scale=None).array[0], STORED)
    assert "spacing" not in read_image(path).meta
    assert [number(value) for value in (None, "", [], "x", ["7", "8"], float("nan"))] == [None] * 4 + [7.0, None]


@pytest.mark.parametrize("width", [0, -5])
def test_window_without_width_counts_as_absent(tmp_path: Path, width: int) -> None:
    path = _save(tmp_path / "x.dcm", WindowCenter=40, WindowWidth=width)
    assert "value_range" in read_image(path).meta


def test_monochrome1_is_turned(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.dcm", PhotometricInterpretation="MONOCHROME1", WindowCenter=2048, WindowWidth=4096)
    plain = _save(tmp_path / "y.dcm", WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_allclose(read_image(path).array, 1 - read_image(plain).array, atol=1e-6)


def test_padding_is_black_and_does_not_count(tmp_path: Path) -> None:
    pixels = STORED.astype(np.int16)
    pixels[0] = -2000
    path = _save(tmp_path / "x.dcm", pixels, PixelPaddingValue=-2000)
    array = read_image(path).array[0]
    assert not array[0].any()
    inside = pixels[1:].astype(float)
    np.testing.assert_allclose(array[1:], (inside - inside.min()) / np.ptp(inside), atol=1e-6)
    inverted = _save(tmp_path / "y.dcm", pixels, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    assert not read_image(inverted).array[0, 0].any()
    ranged = _save(tmp_path / "z.dcm", pixels, PixelPaddingValue=-3000, PixelPaddingRangeLimit=-1000)
    assert not read_image(ranged).array[0, 0].any()


def test_voi_lut_and_modality_lut(tmp_path: Path) -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4096, 0, 16], (np.arange(4096) ** 2 // 300).astype(np.uint16).tobytes()
    path = _save(tmp_path / "x.dcm", VOILUTSequence=[lut], WindowCenter=1, WindowWidth=2)
    np.testing.assert_allclose(read_image(path).array[0], (STORED.astype(int) ** 2 // 300) / 65535, atol=1e-6)
    modality = Dataset()
    modality.LUTDescriptor, modality.ModalityLUTType = [4096, 0, 16], "OD"
    modality.LUTData = (4095 - np.arange(4096)).astype(np.uint16).tobytes()
    path = _save(tmp_path / "y.dcm", ModalityLUTSequence=[modality])
    np.testing.assert_array_equal(read_image(path, scale=None).array[0], 4095 - STORED.astype(int))


def test_frames_and_their_own_rescale(tmp_path: Path) -> None:
    frames = np.stack([STORED, STORED // 2, STORED // 4])
    groups = []
    for slope in (1, 2, 4):
        transformation, group = Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, -slope
        group.PixelValueTransformationSequence = [transformation]
        groups.append(group)
    path = _save(tmp_path / "x.dcm", frames, PerFrameFunctionalGroupsSequence=groups)
    for frame, slope in enumerate((1, 2, 4)):
        array = read_image(path, frame=frame, scale=None).array[0]
        np.testing.assert_allclose(array, frames[frame].astype(float) * slope - slope)
    assert read_image(path).meta["frame"] == 0
    assert read_image(path, frame="middle").meta["frame"] == 1
    with pytest.raises(DataError, match="has 3 frames, frame 3"):
        read_image(path, frame=3)


def test_rgb_and_grey_from_it(tmp_path: Path) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path = _save(tmp_path / "x.dcm", rgb)
    np.testing.assert_allclose(read_image(path).array, np.moveaxis(rgb, -1, 0) / 255, atol=1e-6)
    assert read_image(path, color="grey").array.shape == (1, 6, 8)
    # a window is for physical values, not for colours
    np.testing.assert_array_equal(read_image(path, window=(40, 400)).array, read_image(path).array)


def test_refusals(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.dcm", Rows=60000, Columns=60000)
    with pytest.raises(DataError, match="x.dcm: claims 60000 x 60000 pixels, more than the limit"):
        read_image(path)
    path = _save(tmp_path / "x.dcm", Rows=5000, Columns=5000)
    with pytest.raises(DataError, match="x.dcm: cannot be decoded: The number of bytes of pixel data is less"):
        read_image(path)
    (tmp_path / "x.dcm").write_bytes(b"hello" * 100)
    with pytest.raises(DataError, match="no DICOM file: it has no file header"):
        read_image(tmp_path / "x.dcm")


def test_unsupported_compression_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path
) -> None:
    from pydicom.pixels.decoders import JPEG2000Decoder

    monkeypatch.setattr(JPEG2000Decoder, "_available", {})
    with pytest.raises(
        DataError, match=r"no decoder is installed for its compression, JPEG 2000.*pip install 'medm.*dicom"
    ):
        decode_dicom(shared / "data" / "dicom" / "pydicom" / "JPEG2000.dcm", ReadOptions())


@pytest.mark.parametrize(("syntax", "kind"), [(JPEGBaseline8Bit, "JPEG"), (JPEG2000Lossless, "JPEG2000")])
def test_a_compressed_picture_of_another_size_is_not_unpacked(tmp_path: Path, syntax: Any, kind: str) -> None:
    path = _save(tmp_path / "x.dcm", (STORED >> 4).astype(np.uint8))
    for size in ((8, 6), (3000, 2000)):
        buffer = io.BytesIO()
        Image.fromarray(np.full(size[::-1], 77, np.uint8)).save(buffer, kind)
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([buffer.getvalue()])
        pydicom.dcmwrite(tmp_path / f"{size[0]}.dcm", dataset, enforce_file_format=True)
    assert read_image(tmp_path / "8.dcm").array == pytest.approx(77 / 255, abs=0.01)
    with pytest.raises(DataError, match=r"compressed picture has 2000 x 3000 pixels, the header says 6 x 8"):
        read_image(tmp_path / "3000.dcm")


def test_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path / "x.dcm")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    np.testing.assert_array_equal(read_image(path, scale=None).array[0], STORED)
    content = path.read_bytes()
    length = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(32)) + packer.flush()
    path.write_bytes(content[:length] + bomb)
    monkeypatch.setattr("medmamba_monai.data.dicom._MAX_INFLATED", 2**24)
    with pytest.raises(DataError, match="deflated data grow beyond 16777216 bytes"):
        read_image(path)


def _oracle(path: Path, frame: int) -> np.ndarray:
    """(C, H, W) by pydicom alone, in [0, 1] by the documented rules."""
    dataset = pydicom.dcmread(path)
    array = dataset.pixel_array
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        array = array[frame]
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(array, dataset)
        return np.moveaxis(colours / np.iinfo(colours.dtype).max, -1, 0)
    if array.ndim == 3:
        return np.moveaxis(array / 255, -1, 0)
    values = apply_modality_lut(array, dataset).astype(float)
    if dataset.get("WindowWidth"):
        windowed = apply_voi_lut(apply_modality_lut(array, dataset), dataset, index=0)
        width = dataset.WindowWidth if not hasattr(dataset.WindowWidth, "__len__") else dataset.WindowWidth[0]
        centre = dataset.WindowCenter if not hasattr(dataset.WindowCenter, "__len__") else dataset.WindowCenter[0]
        ends = np.array([[float(centre) - 2 * float(width), float(centre) + 2 * float(width)]])
        low, high = apply_voi_lut(ends, dataset, index=0)[0]
        unit = (windowed - low) / (high - low)
    elif dataset.BitsStored <= 8:
        unit = values / (2**dataset.BitsStored - 1)
    else:
        unit = (values - values.min()) / np.ptp(values)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        unit = 1 - unit
    return unit[np.newaxis]


def test_every_real_file_is_read_as_an_independent_decode_says(shared: Path) -> None:
    paths = sorted((shared / "data" / "dicom").rglob("*.dcm"))
    assert len(paths) == 38
    for path in paths:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        for frame in {0, int(dataset.get("NumberOfFrames") or 1) - 1}:
            oracle = _oracle(path, frame)
            if dataset.get("PixelPaddingValue") is not None:
                stored = pydicom.dcmread(path).pixel_array
                oracle = np.where(stored == dataset.PixelPaddingValue, 0, oracle)
            image = read_image(path, frame=frame)
            assert image.array.dtype == np.float32
            assert image.array.shape == (*oracle.shape[:1], dataset.Rows, dataset.Columns), path.name
            np.testing.assert_allclose(image.array, oracle, atol=2e-5, err_msg=path.name)
            if dataset.get("PixelSpacing"):
                assert image.meta["spacing"] == [float(value) for value in dataset.PixelSpacing]


def test_the_faked_monochrome1_is_the_negative(shared: Path) -> None:
    folder = shared / "data" / "dicom" / "cxr"
    negative = read_image(folder / "fake_monochrome1_cxr.dcm").array
    np.testing.assert_allclose(negative, 1 - read_image(folder / "monochrome2_cxr.dcm").array, atol=1e-6)
