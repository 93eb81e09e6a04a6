"""NIfTI slices and volumes against nibabel."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medmamba_monai.data.image import read_image
from medmamba_monai.errors import DataError

DATA = np.random.default_rng(0).normal(100, 50, (5, 6, 7)).astype(np.float32)
OBLIQUE = np.array([[0.1, -2, 0, 9], [1.9, 0.1, 0.3, 8], [-0.3, 0, 4, 7], [0, 0, 0, 1.0]])


def _save(path: Path, data: Any, affine: Any = None, kind: Any = nibabel.Nifti1Image) -> Path:
    nibabel.save(kind(data, np.eye(4) if affine is None else affine), path)
    return path


def _canonical(path: Path) -> np.ndarray:
    """(rows to posterior, columns to left, slices to superior) by nibabel's own means."""
    ras = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
    return np.swapaxes(ras, 0, 1)[::-1, ::-1]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_volumes_equal_nibabel(tmp_path: Path, suffix: str, kind: Any) -> None:
    path = _save(tmp_path / f"x{suffix}", DATA, OBLIQUE, kind)
    image = read_image(path, scale=None)
    np.testing.assert_array_equal(image.array[0], _canonical(path).astype(np.float32))
    assert image.meta["orientation"] == "PLS"
    np.testing.assert_allclose(image.meta["spacing"], nibabel.affines.voxel_sizes(image.meta["affine"]))
    assert nibabel.aff2axcodes(image.meta["affine"]) == ("P", "L", "S")
    ras = nibabel.as_closest_canonical(nibabel.load(path))
    other = read_image(path, scale=None, orientation="RAS")
    np.testing.assert_array_equal(other.array[0], ras.get_fdata().astype(np.float32))
    np.testing.assert_allclose(other.meta["affine"], ras.affine, atol=1e-6)
    np.testing.assert_array_equal(read_image(path, scale=None, orientation=None).array[0], DATA)


def test_scaling_rules(tmp_path: Path) -> None:
    path = _save(tmp_path / "f.nii", DATA)
    low, high = DATA.min(), DATA.max()
    np.testing.assert_allclose(read_image(path, orientation=None).array[0], (DATA - low) / (high - low), atol=1e-6)
    windowed = read_image(path, orientation=None, window=(100, 100)).array[0]
    np.testing.assert_allclose(windowed, np.clip((DATA - 50) / 100, 0, 1), atol=1e-6)
    bytes_ = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
    path = _save(tmp_path / "u.nii", bytes_)
    np.testing.assert_allclose(read_image(path, orientation=None).array[0], bytes_ / 255, atol=1e-7)


def test_slope_and_intercept(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    image.header.set_slope_inter(2.5, -1000)
    nibabel.save(image, tmp_path / "x.nii.gz")
    oracle = nibabel.load(tmp_path / "x.nii.gz").get_fdata()
    assert oracle.min() < -900
    ours = read_image(tmp_path / "x.nii.gz", orientation=None, scale=None).array[0]
    np.testing.assert_allclose(ours, oracle, rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1)])
def test_axial_slices_look_as_radiologists_view_them(tmp_path: Path, shape: tuple[int, ...]) -> None:
    data = DATA[..., 0].reshape(shape)
    path = _save(tmp_path / "x.nii", data)
    image = read_image(path, scale=None)
    # RAS: axis 0 to the right, axis 1 to anterior; shown with posterior below and left at the right
    np.testing.assert_array_equal(image.array[0], data.reshape(5, 6).T[::-1, ::-1])
    assert image.array.shape == (1, 6, 5)
    assert image.meta["orientation"] == "PLS"
    np.testing.assert_array_equal(read_image(path, scale=None, orientation=None).array[0], data.reshape(5, 6))


def test_coronal_and_sagittal_slices(tmp_path: Path) -> None:
    coronal = read_image(_save(tmp_path / "c.nii", DATA[:, :1]), scale=None)
    np.testing.assert_array_equal(coronal.array[0], DATA[:, 0].T[::-1, ::-1])
    sagittal = read_image(_save(tmp_path / "s.nii", DATA[:1]), scale=None)
    np.testing.assert_array_equal(sagittal.array[0], DATA[0].T[::-1, ::-1])
    assert sagittal.meta["spacing"] == [1.0, 1.0]


def test_slice_of_a_volume_must_be_chosen(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.nii", DATA)
    with pytest.raises(DataError, match="volume of 7 slices, and one image is needed.*frame='middle'"):
        read_image(path, spatial_dims=2)
    image = read_image(path, spatial_dims=2, frame="middle", scale=None)
    np.testing.assert_array_equal(image.array[0], _canonical(path)[..., 3].astype(np.float32))
    assert (image.meta["slice"], image.meta["slices"]) == (3, 7)


def test_series_in_time(tmp_path: Path) -> None:
    data = np.stack([DATA, DATA + 1000], axis=-1)
    path = _save(tmp_path / "x.nii.gz", data)
    np.testing.assert_array_equal(read_image(path, orientation=None, scale=None).array[0], DATA)
    second = read_image(path, orientation=None, scale=None, frame=1)
    np.testing.assert_array_equal(second.array[0], DATA + 1000)
    assert second.meta["frames"] == 2
    with pytest.raises(DataError, match=r"is a series of 2 volumes, and one volume is needed.*frame=0 to 1"):
        read_image(path, spatial_dims=3)
    assert read_image(path, spatial_dims=3, frame="middle").meta["frame"] == 1
    with pytest.raises(DataError, match="has 2 frames, frame 2"):
        read_image(path, frame=2)


def test_colours(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    structured = rgb.copy().view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    path = _save(tmp_path / "rgb.nii.gz", structured)
    np.testing.assert_allclose(
        read_image(path, orientation=None).array, np.moveaxis(rgb, -1, 0) / np.float32(255), atol=1e-7
    )
    vector = np.moveaxis(rgb.astype(np.float32), -1, -1)[:, :, :, np.newaxis]
    path = _save(tmp_path / "vector.nii", vector)
    np.testing.assert_array_equal(read_image(path, orientation=None, scale=None).array, np.moveaxis(rgb, -1, 0))


def test_nan_policy(tmp_path: Path) -> None:
    data = DATA.copy()
    data[0, 0, :3] = np.nan, np.inf, -np.inf
    path = _save(tmp_path / "x.nii", data)
    with pytest.raises(DataError, match="3 of 210 pixels are NaN or infinite"):
        read_image(path)
    image = read_image(path, nonfinite="replace")
    assert np.isfinite(image.array).all()
    assert image.meta["nonfinite"] == 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dim", [3, 32767, 32767, 32767, 1, 1, 1, 1], "more than the limit"),
        ("dim", [3, 500, 500, 500, 1, 1, 1, 1], "the file can hold"),
        ("dim", [3, -5, 6, 7, 1, 1, 1, 1], "claims a size"),
        ("dim", [3, 0, 6, 7, 1, 1, 1, 1], "claims a size"),
        ("dim", [0, 5, 6, 7, 1, 1, 1, 1], "claims 0 dimensions"),
        # a dimension count out of range reads as the other byte order
        ("dim", [99, 5, 6, 7, 1, 1, 1, 1], "claims 25344 dimensions"),
        ("datatype", 999, "data type code 999"),
        ("intent_code", 3001, "CIFTI"),
        ("vox_offset", 1e9, "the file can hold"),
    ],
)
def test_headers_that_lie(tmp_path: Path, field: str, value: Any, message: str) -> None:
    path = _save(tmp_path / "x.nii", DATA)
    content = bytearray(path.read_bytes())
    header = np.frombuffer(content[:348], dtype=nibabel.Nifti1Header().template_dtype)[0].copy()
    header[field] = value
    path.write_bytes(header.tobytes() + bytes(content[348:]))
    with pytest.raises(DataError, match=message):
        read_image(path)


def test_compressed_files_are_checked_to_the_end(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.nii.gz", DATA)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the checksum, after all voxels
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_image(path)
    path.write_bytes(gzip.compress(gzip.decompress(_save(path, DATA).read_bytes())[:500]))
    with pytest.raises(DataError, match=r"has 500 of 1192 bytes"):
        read_image(path)


def test_complex_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="complex"):
        read_image(_save(tmp_path / "x.nii", DATA.astype(np.complex64)))


REAL = [
    "brain_mri_3d/mra_chris.nii.gz",
    "brain_mri_3d/pd_chris.nii.gz",
    "brain_mri_3d/monai_anatomical.nii.gz",
    "brain_mri_3d/monai_reoriented_anat_moved.nii.gz",
    "abdominal_ct_3d/example_ct_sm.nii.gz",
]


@pytest.mark.parametrize("name", REAL)
def test_real_volumes_equal_nibabel(shared: Path, name: str) -> None:
    path = shared / "data" / name
    image = read_image(path, scale=None)
    oracle = _canonical(path).astype(np.float32)
    np.testing.assert_allclose(image.array[0], oracle, rtol=1e-6, atol=1e-4)
    unit = read_image(path).array
    assert unit.min() >= 0 and unit.max() <= 1


def test_an_orientation_that_the_header_leaves_open_is_noted(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    image = nibabel.Nifti1Image(values, np.diag([-2.0, 2.0, 2.0, 1.0]))
    nibabel.save(image, tmp_path / "stated.nii")
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nibabel.save(image, tmp_path / "open.nii")
    stated, left_open = (read_image(tmp_path / f"{name}.nii", spatial_dims=3) for name in ("stated", "open"))
    assert "notes" not in stated.meta
    assert left_open.meta["notes"] == ["the header does not say how it lies; taken to run to left, anterior, superior"]
    np.testing.assert_array_equal(left_open.array, stated.array)
