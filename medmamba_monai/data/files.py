"""Finding image files under a folder.

Which names count as images, in which order, and how a given name is found.

Imports only errors, and dicom where series are told from multi-frame objects. Nothing here opens a picture.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from medmamba_monai.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "FileIndex",
    "dataset_root",
    "image_suffix",
    "is_image_file",
    "natural_key",
    "require_folder",
    "scan_images",
]

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *DICOM_SUFFIXES,
    *(".nii", ".nii.gz"),
)
_DIGITS = re.compile(r"(\d+)")


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts "class2" before "class10" and ignores case; equal only for equal texts.

    Example:
        >>> sorted(["b", "A10", "a2"], key=natural_key)
        ['a2', 'A10', 'b']
    """
    parts = (part for part in _DIGITS.split(text.casefold()) if part)
    key = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)
    return (*key, (2, 0, text))


def image_suffix(name: str) -> str:
    """Lower-case suffix of a file name, ".nii.gz" as one.

    Example:
        >>> image_suffix("scan.NII.GZ"), image_suffix("a.b.png"), image_suffix("IM0001")
        ('.nii.gz', '.png', '')
    """
    lower = name.lower()
    return ".nii.gz" if lower.endswith(".nii.gz") else PurePosixPath(lower).suffix


def is_image_file(path: Path) -> bool:
    """Whether the file counts as an image.

    By suffix, or, for a name without one, by DICOM's mark at byte 128.
    """
    suffix = image_suffix(path.name)
    if suffix in IMAGE_SUFFIXES:
        return True
    # archives name DICOM files by UID ("1.2.840.1"): whatever follows the last dot is then a number
    if suffix and not suffix[1:].isdecimal():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def require_folder(dataset_dir: str | os.PathLike[str]) -> Path:
    """``dataset_dir`` as a path that exists (a folder, or a single file such as an npz).

    Raises:
        DataError: it does not exist.
    """
    path = Path(dataset_dir).expanduser()
    if not path.exists():
        raise DataError(
            "this data set folder does not exist", where=str(path), remedy="check dataset_dir (--dataset_dir)"
        )
    return path


def dataset_root(dataset_dir: str | os.PathLike[str]) -> Path:
    """Folder that datalist paths are relative to: ``dataset_dir``, or its folder where it names a file."""
    path = Path(dataset_dir).expanduser().absolute()
    return path.parent if path.is_file() else path


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "DICOMDIR", "desktop.ini")


def _walk(folder: Path, prefix: str, parents: frozenset[tuple[int, int]]) -> Iterator[tuple[str, Path]]:
    stat = folder.stat()
    identity = (stat.st_dev, stat.st_ino)
    if identity in parents:  # a symbolic link that leads back to a folder above
        return
    names = sorted((entry.name for entry in folder.iterdir() if not _hidden(entry.name)), key=natural_key)
    for name in names:
        path = folder / name
        if path.is_dir():
            yield from _walk(path, f"{prefix}{name}/", parents | {identity})
        elif path.is_file():
            yield f"{prefix}{name}", path


def scan_images(
    folder: Path, *, exclude_files: Sequence[str] = (), dicom_series: bool = False
) -> list[tuple[str, Path]]:
    """Every image file below ``folder`` in natural order; hidden files and other file types are left out.

    Args:
        folder: where to look, recursively; symbolic links are followed, loops are not.
        exclude_files: shell patterns on the relative path or the file name, such as "*_mask*".
        dicom_series: a folder that holds DICOM slices counts as one image (a volume) instead of one per file;
            multi-frame objects, which are volumes by themselves, stay files.

    Returns:
        Pairs of relative path (forward slashes) and path; "." for ``folder`` itself where it is a series.
    """
    found = []
    dicom: dict[str, list[tuple[str, Path]]] = {}
    for relative, path in _walk(folder, "", frozenset()):
        if any(fnmatch(relative, pattern) or fnmatch(path.name, pattern) for pattern in exclude_files):
            continue
        if not is_image_file(path):
            continue
        if dicom_series and _is_dicom(path):
            dicom.setdefault(relative.rpartition("/")[0] or ".", []).append((relative, path))
        else:
            found.append((relative, path))
    if not dicom:
        return found
    for relative, files in dicom.items():
        found += files if _is_multiframe(files[0][1]) else [(relative, folder / relative)]
    return sorted(found, key=lambda pair: natural_key(pair[0]))


def _is_dicom(path: Path) -> bool:
    suffix = image_suffix(path.name)
    return suffix not in IMAGE_SUFFIXES or suffix in DICOM_SUFFIXES


def _is_multiframe(path: Path) -> bool:
    """Whether the file says that it holds several frames; False where it cannot be read, which reading tells."""
    from medmamba_monai.data.dicom import number, read_dataset

    try:
        return (number(read_dataset(path, pixels=False).get("NumberOfFrames")) or 1) > 1
    except DataError:
        return False


class FileIndex:
    """Looks up file names that a table gives, as it spells them, below a folder.

    A name is taken as it stands; else with backslashes turned, or in another Unicode form (files from macOS);
    else, where ``by_name``, as the one file in the whole folder that has this name, with or without suffix.
    The folder is scanned only when the first of these does not settle it.
    """

    def __init__(self, root: Path, *, by_name: bool = False) -> None:
        self.root = root
        self.by_name = by_name
        self._by_path: dict[str, str] | None = None
        self._by_stem: dict[str, list[str]] = {}

    def _scan(self) -> dict[str, str]:
        if self._by_path is None:
            self._by_path = {}
            for relative, _ in _walk(self.root, "", frozenset()):
                self._by_path[unicodedata.normalize("NFC", relative)] = relative
                if self.by_name:
                    name = unicodedata.normalize("NFC", relative.rpartition("/")[2])
                    stem = name[: -len(image_suffix(name))] if image_suffix(name) in IMAGE_SUFFIXES else name
                    for key in {name, stem}:
                        self._by_stem.setdefault(key, []).append(relative)
        return self._by_path

    def find(self, name: str, where: str) -> str:
        """Relative path of the file that ``name`` means.

        Raises:
            DataError: no such file, several files, or a path outside the folder.
        """
        path = PurePosixPath(name.replace("\\", "/") if not (self.root / name).exists() else name)
        if path.is_absolute():
            try:
                path = PurePosixPath(Path(path).relative_to(self.root).as_posix())
            except ValueError:
                raise self._outside(name, where) from None
        if ".." in path.parts:
            raise self._outside(name, where)
        if (self.root / path).exists():
            return path.as_posix()
        known = self._scan()
        wanted = unicodedata.normalize("NFC", path.as_posix())
        if wanted in known:
            return known[wanted]
        candidates = self._by_stem.get(wanted.rpartition("/")[2], [])
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise DataError(
                f"file {name!r} could be any of {candidates[:3]}",
                where=where,
                remedy="give the path, not the name",
            )
        raise self._missing(name, wanted, where)

    def _outside(self, name: str, where: str) -> DataError:
        return DataError(
            f"file {name!r} lies outside the data set folder {self.root}",
            where=where,
            remedy="give paths relative to the data set folder",
        )

    def _missing(self, name: str, wanted: str, where: str) -> DataError:
        near = difflib.get_close_matches(wanted, list(self._scan())[:20000], n=1, cutoff=0.7)
        hint = f"did you mean {near[0]!r}?" if near else "paths are relative to the data set folder"
        return DataError(f"file {name!r} does not exist in {self.root}", where=where, remedy=hint)
