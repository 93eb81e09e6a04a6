"""``read_image``: one medical picture or volume from whatever file, with stated rules. Imports the decoders.

The kind of file is told from its content, not its name. Everything that reads pictures (checks, training,
evaluation, inference) goes through here, so that all see the same pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.data.decoded import Decoded, Frame, ReadOptions, Window, check_size
from medmamba_monai.data.files import DICOM_SUFFIXES, image_suffix
from medmamba_monai.data.intensity import finish
from medmamba_monai.data.npz import read_member, split_member
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["MedicalImage", "make_options", "read_image", "read_with"]

_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"BM", b"GIF8")
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif")
_OTHERS = {
    ".hdr": "header of a two-file NIfTI or Analyze image",
    ".img": "voxels of a two-file NIfTI or Analyze image",
    ".mgh": "FreeSurfer volume",
    ".mgz": "FreeSurfer volume",
    ".mnc": "MINC volume",
    ".head": "AFNI header",
    ".brik": "AFNI voxels",
    ".par": "Philips PAR header",
    ".rec": "Philips REC voxels",
    ".nrrd": "NRRD volume",
    ".mha": "MetaImage volume",
    ".mhd": "MetaImage header",
}


@dataclass
class MedicalImage:
    """A picture or volume.

    Attributes:
        array: float32, (C, H, W) or (C, H, W, D), rows first.
        meta: "filename_or_obj" and "format" always; where known "spacing" (mm along each axis), "affine" (4 x
            4, voxel indices to mm in RAS), "orientation", "window" or "value_range" used for scaling,
            "frames" and "frame", "nonfinite" (how many pixels were replaced), "notes" (conversions made), and
            more.
    """

    array: NDArray[np.float32]
    meta: dict[str, Any]


def make_options(
    *,
    color: str | None = None,
    window: Sequence[float] | Window | None = None,
    frame: Frame = None,
    series: str | None = None,
    spatial_dims: int | None = None,
    orientation: str | None = "PLS",
    scale: str | None = "unit",
    nonfinite: str = "error",
    max_pixels: int | None = None,
) -> ReadOptions:
    """The reading options of ``read_image`` as one checked object.

    Raises:
        ConfigError: a value that is not allowed.
    """
    if window is not None and not isinstance(window, Window):
        try:
            centre, width = (float(part) for part in window)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"window={window!r}", remedy="give (centre, width), such as (40, 400)") from error
        window = Window(centre, width)
    return ReadOptions(color, window, frame, series, spatial_dims, orientation, scale, nonfinite, max_pixels)


def read_image(
    path: str | os.PathLike[str],
    *,
    color: str | None = None,
    window: Sequence[float] | Window | None = None,
    frame: Frame = None,
    series: str | None = None,
    spatial_dims: int | None = None,
    orientation: str | None = "PLS",
    scale: str | None = "unit",
    nonfinite: str = "error",
    max_pixels: int | None = None,
) -> MedicalImage:
    """Read PNG, JPEG, TIFF, WebP, BMP, GIF, DICOM (file or folder), NIfTI, or an image of a MedMNIST npz.

    Args:
        path: the file; a folder for a DICOM series; "name.npz#train/17" for a member of an archive.
        color: "grey" or "rgb"; None keeps what the file has. Grey from RGB is ITU-R BT.601 luma, RGB from
            grey the grey value three times; pictures with other channel counts are refused.
        window: (centre, width) for physical values (DICOM grey, NIfTI), in their units, HU for CT; goes
            before the file's own window. Other files hold finished grey values: it does not apply to them.
        frame: frame of a multi-frame file (default: the first), slice of a volume read with
            ``spatial_dims=2`` (no default), volume of a series in time (default: the first; none with
            ``spatial_dims=3``); "middle" is allowed.
        series: UID or description of the series to read where a folder holds several.
        spatial_dims: 2 or 3 where it matters: 3 makes a volume of a multi-frame DICOM object, 2 takes a slice
            out of a NIfTI volume. None: what the file is.
        orientation: axes of NIfTI volumes and DICOM series: "PLS" (rows to posterior, columns to left, slices
            to superior), any other code such as "RAS", or None for as stored. With ``spatial_dims=3`` a volume
            that does not say how it lies is refused unless it is read as stored. NIfTI slices are turned to the
            usual view: axial rows to posterior and columns to left, coronal inferior and left, sagittal
            inferior and posterior.
        scale: "unit" for [0, 1] by the rules of ``medmamba_monai.data.intensity.finish``; None for values as
            stored with slope and intercept applied, such as HU.
        nonfinite: "error" refuses NaN and infinite pixels; "replace" puts the lowest (NaN, -inf) or highest
            (+inf) finite value in their place and counts them.
        max_pixels: largest number of pixels; None: 2**26 for a picture, 2**29 for a volume.

    Returns:
        The pixels as float32, rows first, and what is known of the file.

    Raises:
        DataError: whatever is wrong with the file: its name, the reason and the remedy.
        ConfigError: an argument that makes no sense.
    """
    options = make_options(
        color=color,
        window=window,
        frame=frame,
        series=series,
        spatial_dims=spatial_dims,
        orientation=orientation,
        scale=scale,
        nonfinite=nonfinite,
        max_pixels=max_pixels,
    )
    return read_with(path, options)


def read_with(path: str | os.PathLike[str], options: ReadOptions) -> MedicalImage:
    """``read_image`` with options made before."""
    where = os.path.abspath(os.fspath(path))  # noqa: PTH100 - Path.absolute keeps ".."
    decoded = _decode(where, options)
    dims = decoded.pixels.ndim - 1
    if options.spatial_dims not in (None, dims):
        raise DataError(
            f"is {dims}-dimensional, {options.spatial_dims} dimensions are needed",
            where=where,
            remedy="give images of that kind, or another network (spatial_dims)",
        )
    if options.spatial_dims == 3:
        _check_volume(decoded, options, where)
    array = finish(decoded, options, where)
    return MedicalImage(np.ascontiguousarray(array), {"filename_or_obj": where} | decoded.meta)


def _check_volume(decoded: Decoded, options: ReadOptions, where: str) -> None:
    """Refuse what only looks like a volume, and one that cannot be turned as asked."""
    shape = decoded.pixels.shape[1:]
    if min(shape) == 1:
        raise DataError(
            f"is a single slice ({' x '.join(map(str, shape))}), a volume is needed",
            where=where,
            remedy="give the whole series: a NIfTI volume, or the folder with all its DICOM slices",
        )
    if options.orientation is not None and "orientation" not in decoded.meta:
        raise DataError(
            f"does not say how it lies in the patient, so it cannot be turned to {options.orientation}",
            where=where,
            remedy="export it with positions and orientation, or read all volumes as stored with orientation=null",
        )


def _decode(where: str, options: ReadOptions) -> Decoded:
    path = Path(where)
    if path.is_dir():
        from medmamba_monai.data.dicom_series import decode_series

        return decode_series(path, options)
    member = split_member(where)
    if member is not None and not path.exists():
        return _decode_member(where, member, options)
    try:
        with path.open("rb") as stream:
            head = stream.read(352)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}",
            where=where,
            remedy="check the path and its permissions",
        ) from error
    return _decode_file(path, head, options)


def _decode_file(path: Path, head: bytes, options: ReadOptions) -> Decoded:
    where, suffix = str(path), image_suffix(path.name)
    if not head:
        raise DataError("is empty (0 bytes)", where=where, remedy="fetch or export the file again")
    if head[128:132] == b"DICM" or (suffix in DICOM_SUFFIXES and not head.startswith(_PICTURES)):
        if options.spatial_dims == 3:
            from medmamba_monai.data.dicom_series import decode_multiframe

            return decode_multiframe(path, options)
        from medmamba_monai.data.dicom import decode_dicom

        return decode_dicom(path, options)
    if suffix in (".nii", ".nii.gz") or head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
        from medmamba_monai.data.nifti import decode_nifti

        return decode_nifti(path, options)
    if head.startswith(_PICTURES) or head[8:12] == b"WEBP" or suffix in _PICTURE_SUFFIXES:
        from medmamba_monai.data.pictures import decode_picture

        return decode_picture(path, options)
    if head.startswith(b"\x1f\x8b") and suffix not in _OTHERS:
        raise DataError("is a gzip archive, not an image", where=where, remedy="unpack it first")
    kind = _OTHERS.get(suffix, f"begins with {head[:8]!r}")
    raise DataError(
        f"is no image of a kind that can be read ({kind})",
        where=where,
        remedy="convert it to NIfTI (.nii.gz)" if suffix in _OTHERS else "convert it to PNG, JPEG, TIFF or DICOM",
    )


def _decode_member(where: str, member: tuple[str, str, int], options: ReadOptions) -> Decoded:
    archive, key, index = member
    array = read_member(Path(archive), key, index)
    if array.dtype.kind not in "uifb":
        raise DataError(f"holds {array.dtype} values", where=where, remedy="save numbers")
    if array.ndim == 3 and array.shape[-1] in (1, 3):
        pixels = np.moveaxis(array, -1, 0)
    elif array.ndim in (2, 3):
        pixels = array[np.newaxis]
    else:
        raise DataError(f"has the shape {array.shape}", where=where, remedy="give (H, W), (H, W, 3) or (H, W, D)")
    check_size(pixels.shape[1:], options, where, pixels.ndim - 1)
    kind = array.dtype.kind
    white = 1.0 if kind == "b" else float(np.iinfo(array.dtype).max) if kind == "u" else None
    return Decoded(np.ascontiguousarray(pixels), white, meta={"format": "npz"})
