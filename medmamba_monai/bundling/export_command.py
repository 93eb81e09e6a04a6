"""The command line verb ``export``. Imported by medmamba_monai.cli when the verb is used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.networks import MedMamba, ModelInfo
from medmamba_monai.networks.export import BATCH_SIZES, OPSET, export_network
from medmamba_monai.networks.exported import FORMATS
from medmamba_monai.networks.model_info import FILE_NAME

__all__ = ["add_arguments", "checkpoint_folder", "output_files", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("source", type=Path, help="a folder with model.pt and model.json, or a bundle")
    parser.add_argument(
        "--format", nargs="+", required=True, choices=list(FORMATS), help="one or more of %(choices)s", metavar="FORMAT"
    )
    endings = ", ".join(FORMATS.values())
    parser.add_argument(
        "--output",
        type=Path,
        help=f"file to write, without its ending ({endings}) or with it; default: beside model.pt",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the files, say where they lie, and return the exit code."""
    folder = checkpoint_folder(arguments.source)
    files = output_files(arguments.output or folder / "model", arguments.format)
    info = ModelInfo.load(folder)
    if not info.network:
        raise CheckpointError(
            "the weights belong to a network that is not of this package",
            where=str(folder / FILE_NAME),
            remedy="export it with `python -m monai.bundle ckpt_export` or `onnx_export`",
        )
    network = MedMamba(**{key: value for key, value in info.network.items() if key != "preset"})
    from medmamba_monai.bundling.calibration import weights_digest
    from medmamba_monai.handlers import load_weights_for_inference

    load_weights_for_inference(network, folder)
    info.extra["weights_sha256"] = weights_digest(folder)  # what calibration.json is compared with
    size = " x ".join(map(str, info.image_size))
    batches = " and ".join(map(str, BATCH_SIZES))
    sys.stdout.write(f"exporting {folder / 'model.pt'} ({info.channels} channel(s), {size}); ONNX may take minutes\n")
    for written in export_network(network, info, files):
        opset = f", opset {OPSET}" if written.format == "onnx" else ""
        sys.stdout.write(
            f"wrote {written.path} ({written.format}{opset}, {written.path.stat().st_size / 1e6:.1f} MB); "
            f"logits differ by at most {written.difference:.1e} in batches of {batches}\n"
        )
    return 0


def checkpoint_folder(source: Path) -> Path:
    """Return the folder of a trained network's files: the given one, or ``models`` in a bundle.

    Raises:
        CheckpointError: neither holds a model.json.
    """
    for folder in (source, source / "models"):
        if (folder / FILE_NAME).is_file():
            return folder
    raise CheckpointError(
        f"there is no {FILE_NAME} here or in models/",
        where=str(source),
        remedy="give a trained bundle, or the ckpt_dir of a training",
    )


def output_files(output: Path, formats: Sequence[str]) -> dict[str, Path]:
    """Return the file to write by format: ``output`` with each format's ending.

    Raises:
        ConfigError: ``output`` ends as a format does that was not asked for, or is a folder.

    Example:
        >>> output_files(Path("nets/v1.2"), ["onnx"])["onnx"].name
        'v1.2.onnx'
    """
    if output.is_dir():
        raise ConfigError("--output is a folder", where=str(output), remedy="give the name of a file in it")
    known = {suffix: name for name, suffix in FORMATS.items()}
    if output.suffix in known:
        if known[output.suffix] not in formats:
            raise ConfigError(
                f"--output ends in {output.suffix}, which is {known[output.suffix]}",
                where=str(output),
                remedy=f"leave the ending out, or add --format {known[output.suffix]}",
            )
        output = output.with_suffix("")
    return {name: output.with_name(output.name + FORMATS[name]) for name in formats}
