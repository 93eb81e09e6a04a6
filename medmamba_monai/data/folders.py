"""The class-per-folder source, with or without train, val and test folders above the classes.

Imports files, entries, layout.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmamba_monai.data.entries import Entry, SplitName, split_or_none
from medmamba_monai.data.files import natural_key, require_folder, scan_images
from medmamba_monai.data.layout import Layout, parse_layout
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["folder_entries", "group_by_pattern", "list_images"]


def list_images(
    dataset_dir: str | os.PathLike[str],
    *,
    exclude_files: Sequence[str] = (),
    dicom_series: bool = False,
    layout: Mapping[str, Any] | None = None,
) -> list[dict[str, str]]:
    """Every image below a folder, for prediction: no labels, no class folders needed.

    Args:
        dataset_dir: the folder, searched recursively, or one image file.
        exclude_files: shell patterns on the relative path or file name to leave out.
        dicom_series: a folder that holds DICOM slices is one volume instead of many images, ``dataset_dir`` too.
        layout: of the data set the network was trained on, see ``parse_layout``. Its exclude_files and dicom_series
            hold here too; of several MedMNIST archives in the folder only the one it names is listed. Images that
            are in no archive are listed as they are found.

    Returns:
        In natural order of the relative path: {"image": absolute path, "file": relative path}. A MedMNIST npz
        gives one item for each of its images.

    Raises:
        DataError: the folder does not exist, holds no image, or holds another MedMNIST set than the layout's.
    """
    from medmamba_monai.data.npz import member_names

    path = require_folder(dataset_dir).absolute()
    archives = [path] if path.suffix.lower() == ".npz" else []
    archives = archives or sorted(path.glob("*.npz"), key=lambda item: natural_key(item.name))
    if layout is not None:
        parsed = parse_layout(layout)
        exclude_files = [*exclude_files, *parsed.options.get("exclude_files", ())]
        dicom_series = dicom_series or parsed.options.get("dicom_series", False)
        archives = _of_layout(parsed, archives)
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return [{"image": f"{path}#{m}", "file": f"{path.name}#{m}"} for m in member_names(path)]
        return [{"image": str(path), "file": path.name}]
    items = [
        {"image": str(found), "file": path.name if relative == "." else relative}
        for relative, found in scan_images(path, exclude_files=exclude_files, dicom_series=dicom_series)
    ]
    for archive in archives:
        items += [{"image": f"{archive}#{m}", "file": f"{archive.name}#{m}"} for m in member_names(archive)]
    if not items:
        raise _no_images(path)
    return items


def _of_layout(layout: Layout, archives: list[Path]) -> list[Path]:
    """The archives that may hold images of the layout's data set."""
    from medmamba_monai.data.medmnist import known_classes

    if layout.kind != "npz":
        return archives
    fitting = [archive for archive in archives if layout.takes(archive.name)]
    foreign = [archive for archive in archives if known_classes(archive) and archive not in fitting]
    if foreign and not fitting:
        raise DataError(
            f"is another data set than {layout.place}, which the layout names",
            where=str(foreign[0]),
            remedy=f"give {layout.place}.npz, or a folder of images, or leave the layout out",
        )
    return fitting or archives


def _no_images(path: Path) -> DataError:
    return DataError(
        "no images found",
        where=str(path),
        remedy="give a folder with PNG, JPEG, BMP, TIFF, WebP, DICOM or NIfTI files, or a MedMNIST npz",
    )


def folder_entries(
    root: Path,
    *,
    exclude_files: Sequence[str] = (),
    group_pattern: str | None = None,
    dicom_series: bool = False,
) -> list[Entry]:
    """Entries of ``root/class/**/image`` or ``root/split/class/**/image``.

    Raises:
        DataError: no images, an image outside the class folders, an empty class folder, split folders mixed
            with class folders, or segmentation masks among the images.
    """
    folders = [item for item in _subfolders(root) if not item.name.startswith("__")]
    splits = {folder: split_or_none(folder.name) for folder in folders}
    split_folders = {folder: split for folder, split in splits.items() if split is not None}
    has_splits = "training" in split_folders.values()
    found = scan_images(root, exclude_files=exclude_files, dicom_series=dicom_series)
    if not found:
        raise _no_images(root)
    entries = []
    for relative, _ in found:
        parts = relative.split("/")
        split: SplitName | None = None
        if has_splits:
            split = split_folders.get(root / parts[0])
            if split is None:
                raise DataError(
                    f"lies outside the split folders {sorted(f.name for f in split_folders)}",
                    where=relative,
                    remedy=f"move it, or leave it out with exclude_files=['{parts[0]}/*']",
                )
            parts = parts[1:]
        # a DICOM series is itself a folder and may be the class folder's direct child, as a file is
        if len(parts) < 2 and dicom_series and (root / relative).is_dir():
            raise DataError(
                "holds DICOM slices where folders of series are expected",
                where=str(root / relative),
                remedy="put each series into a folder of its own inside the folder of its class, or give labels.csv "
                "(file,label) with the folders of the series as files",
            )
        if len(parts) < 2:
            raise DataError(
                "an image lies outside the class folders",
                where=str(root / relative),
                remedy="put each image into a folder named after its class, or give labels.csv (file,label)",
            )
        entries.append(Entry(relative, parts[0].strip(), relative, group_by_pattern(relative, group_pattern), split))
    for parent in split_folders if has_splits else [root]:
        _refuse_empty_classes(root, parent, {entry.file for entry in entries})
    _refuse_masks({entry.file for entry in entries})
    return entries


def group_by_pattern(relative: str, pattern: str | None) -> str | None:
    r"""The group that a regular expression finds in a path.

    Its first parenthesis that matched, or the whole match.

    Raises:
        ConfigError: the pattern is no regular expression.
        DataError: the path does not match.

    Example:
        >>> group_by_pattern("cnv/CNV-6294785-2.jpeg", r"-(\d+)-")
        '6294785'
    """
    if pattern is None:
        return None
    try:
        match = re.search(pattern, relative)
    except re.error as error:
        raise ConfigError(f"group_pattern {pattern!r} is no regular expression: {error}") from error
    if match is None:
        raise DataError(
            f"group_pattern {pattern!r} does not match",
            where=relative,
            remedy="widen the pattern so that every file has a patient or group",
        )
    return next((part for part in match.groups() if part), match.group(0))


def _subfolders(folder: Path) -> list[Path]:
    inside = (item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    return sorted(inside, key=lambda item: natural_key(item.name))


def _refuse_empty_classes(root: Path, parent: Path, files: set[str]) -> None:
    prefixes = {file[: index + 1] for file in files for index, char in enumerate(file) if char == "/"}
    for folder in _subfolders(parent):
        relative = folder.relative_to(root).as_posix() + "/"
        if relative not in prefixes and not folder.name.startswith("__"):
            raise DataError(
                "this class folder has no image",
                where=str(folder),
                remedy="add images or remove the folder",
            )


def _refuse_masks(files: set[str]) -> None:
    masks = [file for file in files if re.search(r"[_-]mask([_-]\d+)?\.[^/]+$", file, re.IGNORECASE)]
    for mask in sorted(masks, key=natural_key):
        if re.sub(r"[_-]mask([_-]\d+)?(?=\.[^/]+$)", "", mask, flags=re.IGNORECASE) in files:
            raise DataError(
                "this is the segmentation mask of an image beside it, not an image of its class",
                where=mask,
                remedy="leave masks out with exclude_files=['*_mask*']",
            )
