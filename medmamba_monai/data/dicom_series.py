"""A folder of DICOM slices as one volume, and multi-frame objects as volumes.

Imports dicom, decoded, orientation.

Slices are sorted by their position along the normal of the image plane, whatever the files are called and
however they are numbered. The volume must be one series, of one shape and orientation, with no slice missing
or doubled.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmamba_monai.data.decoded import Decoded, ReadOptions, Window, check_size
from medmamba_monai.data.dicom import (
    DEFECTS,
    check_picture,
    decode_frame,
    describe,
    first_window,
    frame_item,
    number,
    pixel_spacing,
    read_dataset,
)
from medmamba_monai.data.orientation import reorient, spacing_of
from medmamba_monai.errors import DataError

__all__ = ["decode_multiframe", "decode_series"]

_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's axes run to left and posterior, NIfTI's to right and anterior


@dataclass(frozen=True)
class _Slice:
    path: Path
    frame: int
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    instance: float | None
    shape: tuple[int, int]
    spacing: tuple[float, ...] | None
    gap: float | None  # to the next slice in mm, as the file says


def _vector(value: Any, length: int) -> NDArray[np.float64] | None:
    if value is None or isinstance(value, str) or len(value) != length:
        return None
    numbers = [number(part) for part in value]
    return None if None in numbers else np.array(numbers, dtype=np.float64)


def _slice(path: Path, dataset: Any, frame: int, shape: tuple[int, int]) -> _Slice:
    plane = frame_item(dataset, "PlaneOrientationSequence", frame)
    spacing = pixel_spacing(dataset, frame)
    return _Slice(
        path,
        frame,
        _vector(frame_item(dataset, "PlanePositionSequence", frame).get("ImagePositionPatient"), 3),
        _vector(plane.get("ImageOrientationPatient"), 6),
        number(dataset.get("InstanceNumber")),
        shape,
        tuple(spacing) if spacing else None,
        number(dataset.get("SpacingBetweenSlices")) or number(dataset.get("SliceThickness")),
    )


def decode_series(folder: Path, options: ReadOptions) -> Decoded:
    """Decode the DICOM slices of a folder to (1, H, W, D).

    Files that are no DICOM, and objects without a picture, are passed over.

    Raises:
        DataError: no slices, several series and none chosen, mixed shapes or orientations, a slice missing or
            doubled, positions unknown, or a file that cannot be decoded.
    """
    where = str(folder)
    slices, description = _choose(_headers(folder, options), options.series, where)
    ordered, step = _sort(slices, where)
    rows, columns = ordered[0].shape
    check_size((rows, columns, len(ordered)), options, where, 3)
    frames = []
    windows: list[Window | None] = []
    for item in ordered:
        dataset = read_dataset(item.path)
        frames.append(_decode(dataset, 0, options, str(item.path)))
        windows.append(first_window(dataset))
    return _stack(frames, ordered, step, windows, options, description | {"slices": len(ordered)})


def decode_multiframe(path: Path, options: ReadOptions) -> Decoded:
    """Decode all frames of one DICOM object to (1, H, W, D).

    Raises:
        DataError: as for ``decode_series``.
    """
    where = str(path)
    dataset = read_dataset(path)
    try:
        rows, columns, count = check_picture(dataset, options, where)
    except DEFECTS as error:
        raise DataError(f"cannot be decoded: {error}", where=where, remedy="export it again") from error
    check_size((rows, columns, count), options, where, 3)
    slices = [_slice(path, dataset, frame, (rows, columns)) for frame in range(count)]
    if count > 1 and all(item.position is not None and item.orientation is not None for item in slices):
        slices, step = _sort(slices, where)
    else:
        step = slices[0].gap
    frames = [_decode(dataset, item.frame, options, where) for item in slices]
    windows = [first_window(dataset, item.frame) for item in slices]
    return _stack(frames, slices, step, windows, options, describe(dataset) | {"slices": count})


def _headers(folder: Path, options: ReadOptions) -> Iterable[tuple[_Slice, dict[str, Any], str]]:
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.name == "DICOMDIR":
            continue
        with path.open("rb") as stream:
            if stream.read(132)[128:] != b"DICM":
                continue
        dataset = read_dataset(path, pixels=False)
        if not dataset.get("Rows") or not dataset.get("Columns"):
            continue
        try:
            shape = (int(dataset.Rows), int(dataset.Columns))
            if int(dataset.get("NumberOfFrames") or 1) > 1:
                raise DataError(
                    "is a multi-frame object in a folder of slices",
                    where=str(path),
                    remedy="read this file by itself, with spatial_dims=3",
                )
            check_size(shape, options, str(path))
            item = _slice(path, dataset, 0, shape)
        except DEFECTS as error:
            raise DataError(f"cannot be decoded: {error}", where=str(path), remedy="export it again") from error
        yield item, describe(dataset), f"{dataset.get('SeriesDescription', '')}"


def _choose(
    headers: Iterable[tuple[_Slice, dict[str, Any], str]], wanted: str | None, where: str
) -> tuple[list[_Slice], dict[str, Any]]:
    """Slices of the one series, or of the one whose UID or description is wanted."""
    series: dict[str, list[_Slice]] = defaultdict(list)
    names: dict[str, str] = {}
    about: dict[str, dict[str, Any]] = {}
    for item, description, name in headers:
        uid = str(description.get("series", "without UID"))
        series[uid].append(item)
        names[uid], about[uid] = name, description
    if not series:
        raise DataError("holds no DICOM slices", where=where, remedy="give the folder that holds the slices")
    found = [uid for uid in series if wanted is None or wanted in (uid, names[uid])]
    if len(found) != 1:
        listing = "; ".join(f"{uid} ({names[uid] or 'no description'}, {len(series[uid])})" for uid in series)
        raise DataError(
            f"holds {len(series)} series ({len(found)} fit): {listing}",
            where=where,
            remedy="choose one by its UID or description: series='...'",
        )
    return series[found[0]], about[found[0]]


def _sort(slices: Sequence[_Slice], where: str) -> tuple[list[_Slice], float | None]:
    """Slices in order along the normal, and the distance between neighbours in mm where it is known."""
    first = slices[0]
    for item in slices:
        if item.shape != first.shape:
            raise DataError(
                f"mixes sizes: {first.shape} ({first.path.name}) and {item.shape} ({item.path.name})",
                where=where,
                remedy="remove the localizer or other foreign slices",
            )
    if any(item.position is None or item.orientation is None for item in slices):
        return _sort_by_number(slices, where)
    orientation = np.asarray(first.orientation)
    for item in slices:
        if item.orientation is None or np.abs(item.orientation - orientation).max() > 1e-2:
            raise DataError(
                f"mixes orientations ({first.path.name} and {item.path.name})",
                where=where,
                remedy="remove the localizer or other foreign slices",
            )
    normal = np.cross(orientation[:3], orientation[3:])
    place = {id(item): float(np.dot(normal, np.asarray(item.position))) for item in slices}
    ordered = sorted(slices, key=lambda item: place[id(item)])
    if len(ordered) == 1:
        return ordered, first.gap
    gaps = np.diff([place[id(item)] for item in ordered])
    step = float(np.median(gaps))
    for gap, before, after in zip(gaps, ordered[:-1], ordered[1:], strict=True):
        if gap < 0.1 * step or step <= 1e-4:
            raise DataError(
                f"has two slices at one position ({before.path.name} and {after.path.name})",
                where=where,
                remedy="separate the phases, echoes or time points into folders of their own",
            )
        if gap > 1.5 * step:
            raise DataError(
                f"misses slices between {before.path.name} and {after.path.name} ({gap:.2f} mm, others {step:.2f} mm)",
                where=where,
                remedy="complete the series",
            )
    return ordered, float(np.mean(gaps))


def _sort_by_number(slices: Sequence[_Slice], where: str) -> tuple[list[_Slice], float | None]:
    numbers = [item.instance for item in slices]
    if len(slices) > 1 and (None in numbers or len(set(numbers)) < len(numbers)):
        raise DataError(
            "its slices have neither positions nor different instance numbers, so their order is unknown",
            where=where,
            remedy="export the series with ImagePositionPatient and ImageOrientationPatient",
        )
    return sorted(slices, key=lambda item: item.instance or 0.0), slices[0].gap


def _decode(dataset: Any, frame: int, options: ReadOptions, where: str) -> Decoded:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_picture(dataset, options, where)
            decoded = decode_frame(dataset, frame, options, where)
    except DEFECTS as error:
        raise DataError(
            f"cannot be decoded: {str(error) or type(error).__name__}", where=where, remedy="export it again"
        ) from error
    if decoded.pixels.shape[0] != 1:
        raise DataError("is a colour slice", where=where, remedy="read its frames one by one, with spatial_dims=2")
    return decoded


def _affine(slices: Sequence[_Slice], step: float | None) -> NDArray[np.float64] | None:
    """Voxel (row, column, slice) to mm in RAS, or None where positions are unknown."""
    first = slices[0]
    if first.position is None or first.orientation is None:
        return None
    rows, columns = first.spacing or (1.0, 1.0)
    step = step or 1.0
    affine = np.eye(4)
    # the first three numbers give the direction in which the column number grows
    affine[:3, 0] = first.orientation[3:] * rows
    affine[:3, 1] = first.orientation[:3] * columns
    affine[:3, 2] = np.cross(first.orientation[:3], first.orientation[3:]) * step
    last = slices[-1].position
    if len(slices) > 1 and last is not None:
        affine[:3, 2] = (last - first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    return _TURN @ affine


def _stack(
    frames: Sequence[Decoded],
    slices: Sequence[_Slice],
    step: float | None,
    windows: Sequence[Window | None],
    options: ReadOptions,
    meta: dict[str, Any],
) -> Decoded:
    """One volume with one grey scale: the file's window counts where it is the same in all slices."""
    volume = np.stack([frame.pixels for frame in frames], axis=-1)
    masks = [frame.padding for frame in frames]
    padding = None
    if any(mask is not None for mask in masks):
        shape = volume.shape[1:3]
        padding = np.stack([np.zeros(shape, bool) if mask is None else mask for mask in masks], axis=-1)
    affine = _affine(slices, step)
    pixel = slices[0].spacing
    if affine is not None:
        if options.orientation is not None:
            start = affine
            volume, affine = reorient(volume, start, options.orientation)
            if padding is not None:
                padding = reorient(padding[np.newaxis], start, options.orientation)[0][0]
            meta["orientation"] = options.orientation
        meta |= {"affine": affine} | ({"spacing": spacing_of(affine)} if pixel and step else {})
    elif pixel is not None and step is not None:
        meta |= {"affine": np.diag([*pixel, step, 1.0]), "spacing": [*pixel, step]}
    scales = {frame.full_scale for frame in frames}
    return Decoded(
        np.ascontiguousarray(volume),
        scales.pop() if len(scales) == 1 else None,
        window=windows[0] if len(set(windows)) == 1 else None,
        invert=frames[0].invert,
        padding=padding,
        physical=True,
        meta=meta,
    )
