"""DICOM files: one frame as a picture, with the meaning that the header gives its values.

Imports decoded and errors.

Rules: slope and intercept or the modality LUT first; then the window argument, or the file's VOI LUT, or its
first window; MONOCHROME1 turned; padding values black; palette, YBR and RGB to RGB. Without a window, values
of up to 8 bits are scaled by their type and others by their own range. Empty rescale or window elements count
as absent.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.data.codestreams import coded_size
from medmamba_monai.data.decoded import Decoded, ReadOptions, Window, check_size, pick_frame
from medmamba_monai.errors import DataError

__all__ = ["DEFECTS", "decode_dicom", "decode_frame", "frame_item", "number", "read_dataset"]

DEFLATED = "1.2.840.10008.1.2.1.99"
DEFECTS = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError),
    *(OverflowError, ZeroDivisionError, RuntimeError, MemoryError, struct.error, zlib.error),
)
_MAX_INFLATED = 2**30
_AGAIN = "the file is truncated or damaged: fetch or export it again"


def read_dataset(path: Path, *, pixels: bool = True) -> Any:
    """The pydicom data set of a file.

    Args:
        path: the file.
        pixels: False stops before the pixel data.

    Raises:
        DataError: empty, no DICOM file header, damaged, or deflated data that would not fit into memory.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    where = str(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd elements matter here only if they stop the picture
            _check_inflated(path)
            return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except InvalidDicomError as error:
        raise DataError(
            "is no DICOM file: it has no file header (no 'DICM' at byte 128)",
            where=where,
            remedy="export it again as a DICOM part 10 file (dcmconv of DCMTK adds the header)",
        ) from error
    except DEFECTS as error:
        raise _damaged(error, where) from error


def _damaged(error: BaseException, where: str) -> DataError:
    return DataError(f"cannot be decoded: {str(error) or type(error).__name__}", where=where, remedy=_AGAIN)


def _check_inflated(path: Path) -> None:
    """Refuse deflated data that would grow beyond a gibibyte; pydicom inflates them in one piece."""
    with path.open("rb") as stream:
        head = stream.read(4096)
        if DEFLATED.encode() not in head:
            return
        # 128 bytes and "DICM", then the length of the file header as element (0002,0000)
        length = int.from_bytes(head[140:144], "little") if head[132:138] == b"\x02\x00\x00\x00UL" else 0
        stream.seek(144 + length)
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        block = stream.read(2**20)
        while block and not inflater.eof:
            size += len(inflater.decompress(block, 2**24))
            block = inflater.unconsumed_tail or stream.read(2**20)
            if size > _MAX_INFLATED:
                raise DataError(
                    f"its deflated data grow beyond {_MAX_INFLATED} bytes",
                    where=str(path),
                    remedy="export it anew",
                )


def number(value: Any) -> float | None:
    """The first value of an element as a float, None where it is absent, empty or no finite number.

    Example:
        >>> number(["40", "300"]), number(""), number(None)
        (40.0, None, None)
    """
    if value is None or value == "":
        return None
    if not isinstance(value, (str, bytes)) and hasattr(value, "__len__"):
        return number(value[0]) if len(value) else None
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if np.isfinite(result) else None


def frame_item(dataset: Any, sequence: str, frame: int) -> Any:
    """The functional group that describes a frame, or ``dataset`` itself where there is none."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in [*([per_frame[frame]] if frame < len(per_frame) else []), *shared[:1]]:
        if group.get(sequence):
            return group[sequence].value[0]
    return dataset


def _pixels(dataset: Any, frame: int, where: str) -> tuple[NDArray[Any], str]:
    """One frame, (H, W) or (H, W, 3), YBR turned to RGB, and its photometric interpretation."""
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise DataError("names no transfer syntax", where=where, remedy="export it again as a DICOM part 10 file")
    try:
        decoder = get_decoder(syntax)
        missing = decoder.is_encapsulated and not decoder.is_available
    except NotImplementedError as error:
        raise DataError(
            f"its compression {syntax.name} cannot be decoded", where=where, remedy="export it uncompressed"
        ) from error
    if missing:
        raise _no_decoder(syntax.name, where)
    if decoder.is_encapsulated:
        _check_code(dataset, frame, where)
    try:
        array, properties = decoder.as_array(dataset, index=frame)
    except RuntimeError as error:
        if "12-bit" in str(error) or "missing dependencies" in str(error):
            raise _no_decoder(syntax.name, where) from error
        raise
    return array, str(
        getattr(properties["photometric_interpretation"], "value", properties["photometric_interpretation"])
    )


def _check_code(dataset: Any, frame: int, where: str) -> None:
    """Refuse a compressed frame that would unpack to another size than the header says."""
    from pydicom.encaps import get_frame

    frames = max(int(dataset.get("NumberOfFrames") or 1), 1)
    size = coded_size(get_frame(dataset.PixelData, frame, number_of_frames=frames))
    expected = (int(dataset.Rows), int(dataset.Columns))
    if size is not None and size != expected:
        raise DataError(
            f"its compressed picture has {size[0]} x {size[1]} pixels, the header says {expected[0]} x {expected[1]}",
            where=where,
            remedy=_AGAIN,
        )


def _no_decoder(syntax: str, where: str) -> DataError:
    remedy = "pip install 'medmamba_monai[dicom]'"
    if "Process 2 & 4" in syntax or "Extended" in syntax:
        remedy += "; 12-bit JPEG Extended also needs pylibjpeg-libjpeg, whose licence is GPL v3"
    return DataError(f"no decoder is installed for its compression, {syntax}", where=where, remedy=remedy)


def _modality(array: NDArray[Any], dataset: Any, frame: int) -> tuple[NDArray[Any], bool]:
    """Values in the modality's units, and whether anything was applied."""
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        return np.asarray(apply_modality_lut(array, dataset)), True
    item = frame_item(dataset, "PixelValueTransformationSequence", frame)
    slope, intercept = number(item.get("RescaleSlope")), number(item.get("RescaleIntercept"))
    slope = 1.0 if slope is None or slope == 0 else slope
    if slope == 1.0 and not intercept:
        return array, False
    return array * np.float64(slope) + np.float64(intercept or 0.0), True


def first_window(dataset: Any, frame: int = 0) -> Window | None:
    """The file's first window that has a width above 0."""
    item = frame_item(dataset, "FrameVOILUTSequence", frame)
    centre, width = number(item.get("WindowCenter")), number(item.get("WindowWidth"))
    if centre is None or width is None or width <= 0:
        return None
    function = str(item.get("VOILUTFunction") or "LINEAR").upper()
    return Window(centre, width, function if function in ("LINEAR_EXACT", "SIGMOID") else "LINEAR")


def _padding(array: NDArray[Any], dataset: Any) -> NDArray[np.bool_] | None:
    value = number(dataset.get("PixelPaddingValue"))
    if value is None:
        return None
    limit = number(dataset.get("PixelPaddingRangeLimit"))
    low, high = sorted((value, value if limit is None else limit))
    mask = np.asarray((array >= low) & (array <= high))
    return mask if mask.any() else None


def decode_frame(dataset: Any, frame: int, options: ReadOptions, where: str) -> Decoded:
    """One frame of a data set whose size has been checked."""
    array, photometric = _pixels(dataset, frame, where)
    if photometric == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        array = apply_color_lut(array, dataset)
        full_scale = float(np.iinfo(array.dtype).max)
        return Decoded(np.ascontiguousarray(np.moveaxis(array[..., :3], -1, 0)), full_scale)
    bits = int(dataset.get("BitsStored") or 8 * array.dtype.itemsize)
    if array.ndim == 3:
        if photometric not in ("RGB", "YBR_RCT", "YBR_ICT"):
            raise DataError(f"its colours are {photometric}, which is not read", where=where, remedy="export it as RGB")
        return Decoded(np.ascontiguousarray(np.moveaxis(array, -1, 0)), float(2**bits - 1))
    padding = _padding(array, dataset)
    values, scaled = _modality(array, dataset, frame)
    window, full_scale_or_none = None, None
    if options.window is None and options.scale is not None and dataset.get("VOILUTSequence"):
        from pydicom.pixels import apply_voi

        stored = values if scaled and values.dtype.kind in "iu" else np.rint(values).astype(np.int64)
        values = apply_voi(stored, dataset)
        full_scale_or_none = float(2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    else:
        window = first_window(dataset, frame)
        signed = int(dataset.get("PixelRepresentation") or 0) == 1
        if window is None and bits <= 8 and not scaled and not signed and array.dtype.kind in "iub":
            full_scale_or_none = float(2**bits - 1)
    return Decoded(
        values[np.newaxis],
        full_scale_or_none,
        window=window,
        invert=photometric == "MONOCHROME1",
        padding=padding,
        physical=True,
    )


def describe(dataset: Any) -> dict[str, Any]:
    """What a data set says of itself that is no person's name.

    Modality, photometric interpretation, series.
    """
    keys = {
        "modality": "Modality",
        "photometric": "PhotometricInterpretation",
        "series": "SeriesInstanceUID",
        "bits": "BitsStored",
    }
    found = {name: dataset.get(keyword) for name, keyword in keys.items()}
    return {"format": "dicom"} | {
        name: value if isinstance(value, int) else str(value) for name, value in found.items() if value
    }


def check_picture(dataset: Any, options: ReadOptions, where: str) -> tuple[int, int, int]:
    """Rows, columns and frames of a data set that holds a picture of acceptable size.

    Raises:
        DataError: no pixel data, sizes missing or too large.
    """
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        kind = getattr(dataset.get("SOPClassUID"), "name", None) or "unknown object"
        raise DataError(f"holds no picture ({kind})", where=where, remedy="leave this file out; give image objects")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    frames = max(int(dataset.get("NumberOfFrames") or 1), 1)
    check_size((rows, columns), options, where)
    return rows, columns, frames


def pixel_spacing(dataset: Any, frame: int = 0) -> list[float] | None:
    """Distance between rows and between columns in mm, or None."""
    for item in (frame_item(dataset, "PixelMeasuresSequence", frame), dataset):
        for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
            value = item.get(name)
            if value is not None and not isinstance(value, str) and len(value) == 2:
                pair = [number(part) for part in value]
                if all(part is not None and part > 0 for part in pair):
                    return [part for part in pair if part is not None]
    return None


def decode_dicom(path: Path, options: ReadOptions) -> Decoded:
    """Decode one frame of a DICOM file to (C, H, W).

    Raises:
        DataError: no DICOM, no picture, no decoder for its compression, truncated, damaged or too large.
    """
    where = str(path)
    dataset = read_dataset(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, _, frames = check_picture(dataset, options, where)
            frame = pick_frame(options.frame, frames, where) if frames > 1 else 0
            decoded = decode_frame(dataset, frame, options, where)
            meta = describe(dataset)
            spacing = pixel_spacing(dataset, frame)
    except DEFECTS as error:
        raise _damaged(error, where) from error
    if frames > 1:
        meta |= {"frames": frames, "frame": frame}
    if spacing:
        meta |= {"spacing": spacing, "affine": np.diag([*spacing, 1.0, 1.0])}
    decoded.meta = meta
    return decoded
