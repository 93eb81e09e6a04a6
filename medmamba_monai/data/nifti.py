"""NIfTI-1 and NIfTI-2 files (.nii, .nii.gz): slices and volumes, oriented, with spacing.

Imports decoded, orientation.

Rules: the stored slope and intercept are applied; of a series in time the first volume is read unless
``frame`` says otherwise (where a volume is asked for, it has to); uint8 and RGB24 values are scaled by their
type, all others by the window argument or their own range.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.data.decoded import Decoded, ReadOptions, check_size, pick_frame
from medmamba_monai.data.orientation import check_affine, reorient, spacing_of, view_axes
from medmamba_monai.errors import DataError

__all__ = ["decode_nifti"]

_DEFLATE_RATIO = 1032  # zlib cannot shrink data further than this
_TRAILING = 2**26
_DEFECTS = (OSError, EOFError, ValueError, TypeError, OverflowError, KeyError, zlib.error, MemoryError)
_AGAIN = "the file is truncated or damaged: fetch or export it again"


def decode_nifti(path: Path, options: ReadOptions) -> Decoded:
    """Decode one NIfTI file to (C, H, W) or (C, H, W, D).

    Raises:
        DataError: empty, no NIfTI, truncated, damaged, too large, or not an image.
    """
    from nibabel.imageglobals import LoggingOutputSuppressor
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    where = str(path)
    try:
        with path.open("rb") as peek:  # the content counts: plain files called .nii.gz exist
            zipped = peek.read(2) == b"\x1f\x8b"
        with LoggingOutputSuppressor(), gzip.open(path) if zipped else path.open("rb") as stream:
            image = _load(stream, path, options, zipped)
            values, meta = _values(image, options, where)
    except (HeaderDataError, WrapStructError, *_DEFECTS) as error:
        raise DataError(
            f"cannot be decoded: {str(error) or type(error).__name__}", where=where, remedy=_AGAIN
        ) from error
    return _orient(values, image, options, meta, where)


def _load(stream: IO[bytes] | gzip.GzipFile, path: Path, options: ReadOptions, zipped: bool) -> Any:
    """The nibabel image, after the header's claims are compared with the file."""
    from nibabel.nifti1 import Nifti1Image, data_type_codes
    from nibabel.nifti2 import Nifti2Image

    where = str(path)
    head = stream.read(540)
    kind = {b"n+1": Nifti1Image, b"ni1": Nifti1Image}.get(head[344:347])
    kind = kind or {b"n+2": Nifti2Image, b"ni2": Nifti2Image}.get(head[4:7])
    if kind is None or b"ni" in (head[344:346], head[4:6]):
        pair = "; its voxels are in a separate .img file" if kind else ""
        raise DataError(f"is no single-file NIfTI{pair}", where=where, remedy="convert it to .nii.gz")
    header = kind.header_class(head[: kind.header_class.sizeof_hdr], check=False)
    intent = int(header["intent_code"])
    if 3000 <= intent < 4000:
        raise DataError("is a CIFTI matrix, not an image", where=where, remedy="give image volumes")
    count = int(header["dim"][0])
    if not 1 <= count <= 7:
        raise DataError(f"claims {count} dimensions", where=where, remedy=_AGAIN)
    shape = tuple(int(side) for side in header["dim"][1 : count + 1])
    # the limit is for one volume; the frames of a series must all be in the file, but one is decoded
    check_size(shape[:3], options, where, 3)
    code = int(header["datatype"])
    if code not in data_type_codes.dtype:
        raise DataError(f"has the data type code {code}, unknown in NIfTI", where=where, remedy=_AGAIN)
    dtype = header.get_data_dtype()
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize + int(header["vox_offset"])
    check_size((max(needed // max(dtype.itemsize, 1), 0),), ReadOptions(max_pixels=2**31), where, 3)
    available = path.stat().st_size * (_DEFLATE_RATIO if zipped else 1)
    if needed > available:
        raise DataError(
            f"claims {needed} bytes ({' x '.join(map(str, shape))} {dtype}), the file can hold {available}",
            where=where,
            remedy=_AGAIN,
        )
    content = head + stream.read(max(needed - len(head), 0))
    if len(content) < needed:
        raise DataError(f"has {len(content)} of {needed} bytes", where=where, remedy=_AGAIN)
    rest = 0
    while zipped and (block := stream.read(2**20)):  # gzip compares its checksum at the end of the stream only
        rest += len(block)
        if rest > _TRAILING:
            raise DataError(f"has more than {_TRAILING} bytes after its voxels", where=where, remedy=_AGAIN)
    return kind.from_bytes(content)


def _values(image: Any, options: ReadOptions, where: str) -> tuple[NDArray[Any], dict[str, Any]]:
    """(C, i, j, k) as stored, slope and intercept applied, and what is known so far."""
    shape = tuple(int(side) for side in image.shape)
    meta: dict[str, Any] = {"format": "nifti", "stored_shape": list(shape)}
    dtype = image.get_data_dtype()
    if dtype.kind == "c":
        raise DataError(f"holds complex numbers ({dtype})", where=where, remedy="save the magnitude as float32")
    index: tuple[Any, ...] = (slice(None),) * len(shape)
    if len(shape) > 3 and shape[3] > 1 and max(shape[4:], default=1) == 1:
        if options.spatial_dims == 3 and options.frame is None:
            raise DataError(
                f"is a series of {shape[3]} volumes, and one volume is needed",
                where=where,
                remedy=f"choose one with frame=0 to {shape[3] - 1} or 'middle', or split the series into files",
            )
        frame = pick_frame(options.frame, shape[3], where)
        meta |= {"frames": shape[3], "frame": frame}
        index = (slice(None), slice(None), slice(None), slice(frame, frame + 1), *index[4:])
    raw = np.asanyarray(image.dataobj[index])
    if raw.dtype.names:
        raw = np.stack([raw[name] for name in "RGB"], axis=-1).reshape(*_three(raw.shape, where), 3)
        return np.moveaxis(raw, -1, 0), meta | {"full_scale": 255.0}
    # NIfTI keeps the components of a vector in the fifth dimension
    channels = shape[4] if len(shape) == 5 and shape[3] == 1 else 1
    raw = raw.reshape(*_three(raw.shape[:4], where), channels)
    plain = dtype == np.uint8 and image.dataobj.slope == 1 and image.dataobj.inter == 0
    return np.moveaxis(raw, -1, 0), meta | ({"full_scale": 255.0} if plain else {})


def _three(shape: tuple[int, ...], where: str) -> tuple[int, int, int]:
    if max(shape[3:], default=1) > 1:
        raise DataError(
            f"has {len(shape)} dimensions: {' x '.join(map(str, shape))}",
            where=where,
            remedy="give single volumes",
        )
    i, j, k = (*shape, 1, 1)[:3]
    return i, j, k


def _orient(values: NDArray[Any], image: Any, options: ReadOptions, meta: dict[str, Any], where: str) -> Decoded:
    from nibabel import aff2axcodes

    shape = values.shape[1:]
    thin = [axis for axis in (2, 0, 1) if shape[axis] == 1]
    flat = bool(thin) if options.spatial_dims is None else options.spatial_dims == 2
    full_scale = meta.pop("full_scale", None)
    affine = np.asarray(image.affine, dtype=np.float64)
    if not (int(image.header["sform_code"]) or int(image.header["qform_code"])):
        meta["notes"] = ["the header does not say how it lies; taken to run to left, anterior, superior"]
    slice_axis = thin[0] if thin else 2
    if options.orientation is not None:
        affine = check_affine(affine, where)
        meta["stored_orientation"] = "".join(aff2axcodes(affine))
        axcodes = view_axes(affine, slice_axis) if flat else options.orientation
        values, affine = reorient(values, affine, axcodes)
        slice_axis = 2
        meta["orientation"] = axcodes
    if flat:
        count = values.shape[slice_axis + 1]
        if count > 1 and (options.frame is None or "frame" in meta):
            raise DataError(
                f"is a volume of {count} slices, and one image is needed",
                where=where,
                remedy="choose a slice with frame=..., or frame='middle', or read it with spatial_dims=3",
            )
        chosen = pick_frame(options.frame, count, where) if count > 1 else 0
        values = np.take(values, chosen, axis=slice_axis + 1)
        if count > 1:
            meta |= {"slices": count, "slice": chosen}
    spacing = spacing_of(affine)
    if flat:
        spacing.pop(slice_axis)
    meta |= {"affine": affine, "spacing": spacing}
    return Decoded(np.ascontiguousarray(values), full_scale, physical=full_scale is None, meta=meta)
