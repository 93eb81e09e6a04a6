"""The command line verb ``data``. Imported by medmamba_monai.cli when the verb is used."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import DataError
from .check import check_datalist
from .findings import TASKS
from .report import CheckReport
from .source import DataSource

__all__ = ["add_arguments", "run"]

_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and options of the verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="read every image once and report what would spoil a training")
    check.add_argument("source", type=Path, help="folder of the images, an npz file, or a datalist (JSON or CSV)")
    check.add_argument("--dataset_dir", type=Path, help="folder that a datalist's paths start from; default: its own")
    check.add_argument("--preset", type=Path, help="a bundle's dataset_NAME.json, where source is that public archive")
    check.add_argument("--output_dir", type=Path, default=Path("data_check"), help="default: %(default)s")
    check.add_argument(
        "--volumes", action="store_true", help="images are volumes: NIfTI files and folders with a DICOM series each"
    )
    check.add_argument(
        "--task", choices=TASKS, default="multiclass", help="multilabel: an image may have several classes, or none"
    )
    check.add_argument("--workers", type=int, default=1, help="threads that read (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Check, write data_report.json and contact_sheet.png, print the findings; 3 when training should not go ahead."""
    source: Path = arguments.source
    is_list = source.suffix.lower() in (".json", ".csv")
    preset = {} if arguments.preset is None else _read_preset(arguments.preset)
    try:
        if not source.exists():
            raise DataError("there is no such folder or file", where=str(source))
        report = check_datalist(
            (arguments.dataset_dir or source.parent) if is_list else source,
            source if is_list else None,
            output_dir=arguments.output_dir,
            workers=arguments.workers,
            reading={"spatial_dims": 3} if arguments.volumes else None,
            dicom_series=arguments.volumes,
            task=arguments.task,
            **{key: preset[key] for key in ("layout", "class_names") if key in preset},
        )
    except DataError as error:
        if "data_source" not in preset:
            raise
        raise DataSource.parse(preset["data_source"]).explain(error) from error
    sys.stdout.write(f"{summary(report)}\nreport and contact sheet: {arguments.output_dir}\n")
    return 0 if report.ok else 3


def _read_preset(file: Path) -> dict[str, Any]:
    try:
        preset = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"is no preset: {error}", where=str(file), remedy="give configs/dataset_NAME.json") from error
    if not isinstance(preset, dict) or "layout" not in preset:
        raise DataError("is no preset: it has no layout", where=str(file), remedy="give configs/dataset_NAME.json")
    return preset


def summary(report: CheckReport) -> str:
    """Return the findings as a few lines, the first of each kind by name."""
    lines = [f"{report.images} images in {report.seconds:.1f} s"]
    lines += [
        f"  {name}: " + ", ".join(f"{n} {part}" for part, n in parts.items())
        for name, parts in report.class_counts.items()
    ]
    findings = {
        "unreadable": [f"{entry['file']}: {entry['error']}" for entry in report.unreadable],
        "patients or groups in two splits": [str(entry["group"]) for entry in report.groups_in_two_splits],
        "same picture in two splits": [" = ".join(pair.files) for pair in report.leaks],
        "same picture with two labels": [" = ".join(pair.files) for pair in report.conflicts],
        "odd": [f"{entry['file']}: {entry['what']}" for entry in report.odd],
    }
    for kind, entries in findings.items():
        if entries:
            lines.append(f"{kind}: {len(entries)}")
            lines += [f"  {entry}" for entry in entries[:_SHOWN]]
            lines += [f"  and {len(entries) - _SHOWN} more"] if len(entries) > _SHOWN else []
    lines.append("training can go ahead" if report.ok else "training should not go ahead")
    return "\n".join(lines)
