"""The command line verb ``report``. Imported by medmamba_monai.cli when the verb is used."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medmamba_monai.errors import DataError
from medmamba_monai.report.run import PARTS, Run, read_run
from medmamba_monai.report.writer import make_report

__all__ = ["add_arguments", "picture_reader", "run"]

READER_KEYS = ("color", "window", "frame", "series", "spatial_dims", "orientation")
DEFAULT_FOLDER = "$@bundle_root + '/data'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("output_dir", type=Path, help="folder that evaluate wrote: predictions.csv, metrics.json, ...")
    parser.add_argument("--dataset_dir", type=Path, help="folder of the images; default: where they were")
    parser.add_argument("--split", choices=PARTS, help="part that was evaluated; default: as the files tell")


def run(arguments: argparse.Namespace) -> int:
    """Make figures and page again, say where they lie, and return the exit code."""
    found = read_run(arguments.output_dir, arguments.split)
    read, reason = picture_reader(found, arguments.dataset_dir)
    if read is None:
        sys.stdout.write(f"the sheet of errors is drawn without images: {reason}\n")
    path = make_report(arguments.output_dir, arguments.split, read)
    sys.stdout.write(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB) and {path.parent / 'figures'}\n")
    return 0


def picture_reader(found: Run, dataset_dir: Path | None = None) -> tuple[Callable[[str], Any] | None, str]:
    """How the images of a run are read, from what its saved configuration says plainly; nothing in it is executed.

    Args:
        found: the run.
        dataset_dir: where the images are; None: where they were.

    Returns:
        The reader, or None and the reason.

    Raises:
        DataError: ``dataset_dir`` is given and does not exist.
    """
    from medmamba_monai.data import ReadImaged

    config = found.configs.get("evaluate") or found.configs.get("train")
    if config is None:
        return None, "the configuration of the run was not saved"
    folder = dataset_dir or _folder(config)
    if folder is None or not folder.exists():
        if dataset_dir is not None:
            raise DataError("there is no such folder", where=f"--dataset_dir {dataset_dir}")
        return None, "they are no longer where they were; --dataset_dir FOLDER says where they are"
    options = {key: config[key] for key in READER_KEYS if key in config}
    if any(isinstance(value, str) and value[:1] in ("$", "@") for value in options.values()):
        return None, "how they are read is an expression in the saved configuration, which is not executed"
    if options.get("spatial_dims") == 3 and not options.get("window"):
        options["scale"] = None
    reader = ReadImaged("image", **options)
    root = folder if folder.is_dir() else folder.parent

    def read(file: str) -> Any:
        # as the data list's items: a member of an archive is "archive.npz#part/number"
        return np.asarray(reader({"image": os.path.join(root, file)})["image"])  # noqa: PTH118

    return read, ""


def _folder(config: Mapping[str, Any]) -> Path | None:
    value, root = config.get("dataset_dir"), config.get("bundle_root")
    if value == DEFAULT_FOLDER and isinstance(root, str):
        return Path(root) / "data"
    return Path(value).expanduser() if isinstance(value, str) and value[:1] not in ("$", "@") else None
