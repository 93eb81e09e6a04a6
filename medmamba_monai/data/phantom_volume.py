"""Synthetic head volumes with labels, as NIfTI files and DICOM series, for tests; no patient was ever behind them.

A bright scalp, a brain and its dark ventricles, which are wide in one class and narrow in the other. Brightness is
drawn from a range of 1 to 20 for each head, as magnetic resonance has no units, and the field of view is no cube.
Imports numpy and orientation; nibabel and pydicom where files are written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.data.orientation import reorient, spacing_of

__all__ = ["CLASS_NAMES", "phantom_head", "write_heads", "write_nifti", "write_series"]

CLASS_NAMES = ("narrow", "wide")
SHAPE, SPACING = (44, 36, 40), (5.0, 5.0, 4.0)
_TURN = np.array([-1.0, -1.0, 1.0])  # between NIfTI's right, anterior, superior and DICOM's left, posterior, superior


def phantom_head(label: str, seed: int) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Draw one head.

    Args:
        label: a name of :data:`CLASS_NAMES`.
        seed: the same seed gives the same head.

    Returns:
        (44, 36, 40) int16, rows towards posterior, columns towards left, slices towards superior, and its affine:
        voxels of 5 x 5 x 4 mm, indices to mm in RAS.

    Example:
        >>> volume, affine = phantom_head("wide", seed=1)
        >>> volume.shape, spacing_of(affine)
        ((44, 36, 40), [5.0, 5.0, 4.0])
    """
    rng = np.random.default_rng([seed, CLASS_NAMES.index(label)])
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(SHAPE, SPACING, strict=True)]
    back, left, up = np.meshgrid(*axes, indexing="ij")
    shift = rng.uniform(-6, 6, 3)
    back, left, up = back - shift[0], left - shift[1], up - shift[2]
    size = rng.uniform(0.93, 1.07)

    def ellipsoid(radii: tuple[float, float, float], middle: float = 0.0) -> NDArray[np.bool_]:
        axes = zip((back, left - middle, up), radii, strict=True)
        return np.asarray(sum((axis / (size * radius)) ** 2 for axis, radius in axes) < 1)

    head = np.zeros(SHAPE)
    head[ellipsoid((95, 75, 72))] = 300  # scalp
    head[ellipsoid((88, 68, 65))] = 40  # skull
    head[ellipsoid((84, 64, 61))] = 200  # brain
    width = 9.0 if label == "narrow" else 20.0
    for side in (-1, 1):
        head[ellipsoid((45, width, 16), side * 14.0)] = 60  # ventricles
    head[ellipsoid((8, 8, 8), 40.0)] = 110  # a mark on the left, so that mirroring shows
    field = 1 + 0.1 * (back * rng.uniform(-1, 1) + up * rng.uniform(-1, 1)) / 100
    head = np.abs(head * field + rng.normal(0, 6, SHAPE)) * rng.uniform(1, 20)
    affine = np.zeros((4, 4))
    affine[[1, 0, 2, 3], [0, 1, 2, 3]] = [-SPACING[0], -SPACING[1], SPACING[2], 1]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return np.rint(head).astype(np.int16), affine


def write_nifti(
    path: str | os.PathLike[str], volume: NDArray[np.int16], affine: NDArray[np.float64], axes: str = "RAS"
) -> None:
    """Write a NIfTI file whose stored axes run towards ``axes``."""
    import nibabel

    turned, new = reorient(volume[np.newaxis], affine, axes)
    nibabel.save(nibabel.Nifti1Image(turned[0], new), os.fspath(path))


def write_series(
    folder: str | os.PathLike[str], volume: NDArray[np.int16], affine: NDArray[np.float64], description: str = "T1"
) -> None:
    """Write the slices of a volume as one DICOM series, under names that do not follow their order."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    Path(folder).mkdir(parents=True, exist_ok=True)
    rows, columns, slices = spacing_of(affine)
    series = generate_uid()
    for index in range(volume.shape[2]):
        item = Dataset()
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = MRImageStorage
        item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID = generate_uid()
        item.Modality, item.SeriesInstanceUID, item.SeriesDescription = "MR", series, description
        item.InstanceNumber = index + 1
        item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelRepresentation = 1, "MONOCHROME2", 1
        item.BitsAllocated = item.BitsStored = 16
        item.HighBit = 15
        item.Rows, item.Columns = volume.shape[:2]
        item.PixelSpacing, item.SliceThickness = [rows, columns], slices
        along_rows, along_columns = _TURN * affine[:3, 0] / rows, _TURN * affine[:3, 1] / columns
        item.ImageOrientationPatient = [float(value) for value in (*along_columns, *along_rows)]
        item.ImagePositionPatient = [float(value) for value in _TURN * (affine @ [0, 0, index, 1])[:3]]
        item.WindowCenter, item.WindowWidth = int(volume[..., index].mean()) + 1, int(volume.max()) + 1
        item.PixelData = np.ascontiguousarray(volume[..., index]).tobytes()
        name = f"{(7 * index + 3) % 1009:04d}.dcm"
        pydicom.dcmwrite(Path(folder) / name, item, enforce_file_format=True)


def write_heads(folder: str | os.PathLike[str], per_class: int, names: Sequence[str] = CLASS_NAMES) -> Path:
    """Write heads into a folder a class, every third one as a DICOM series, the others as NIfTI files.

    Args:
        folder: made if it does not exist.
        per_class: heads of each class.
        names: of the two class folders.

    Returns:
        The folder.
    """
    for name, label in zip(names, CLASS_NAMES, strict=True):
        (Path(folder) / name).mkdir(parents=True)
        for number in range(per_class):
            volume, affine = phantom_head(label, number)
            place = Path(folder) / name / f"head{number}"
            if number % 3 == 2:
                write_series(place, volume, affine)
            else:
                suffix, axes = (".nii.gz", "RAS") if number % 3 else (".nii", "PSR")
                write_nifti(place.with_suffix(suffix), volume, affine, axes)
    return Path(folder)
