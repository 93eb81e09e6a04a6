"""Exported files in place of the network they were made from: TorchScript, ONNX, torch.export.

What a file was made for (classes, image size, preprocessing) stands inside it, as model.json stands beside weights.
Imports model_info and torch; onnxruntime where an ONNX file is opened.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BackendError, CheckpointError, ConfigError
from . import pt2
from .model_info import FILE_NAME, ModelInfo

__all__ = ["FORMATS", "ExportedNetwork", "format_of", "read_info", "require"]

FORMATS = {"torchscript": ".ts", "onnx": ".onnx", "torch_export": ".pt2"}
"""The end of a file's name, by format."""

Run = Callable[[Tensor], Tensor]


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format that the end of a file's name stands for.

    Raises:
        CheckpointError: for any other end.

    Example:
        >>> format_of("models/model.onnx")
        'onnx'
    """
    for name, suffix in FORMATS.items():
        if Path(path).suffix == suffix:
            return name
    known = ", ".join(f"{suffix} ({name})" for name, suffix in FORMATS.items())
    raise CheckpointError("this is not the name of an exported file", where=str(path), remedy=f"it ends in {known}")


def require(*packages: str) -> list[ModuleType]:
    """Import packages of the extra ``export``.

    Raises:
        ConfigError: naming the extra, when one is not installed.
    """
    try:
        return [importlib.import_module(package) for package in packages]
    except ImportError as error:
        raise ConfigError(
            f"ONNX needs the package {error.name or packages[0]}, which is not installed",
            remedy="pip install 'medmamba_monai[export]'",
        ) from error


def read_info(path: str | os.PathLike[str]) -> ModelInfo:
    """Read what an exported file says of itself, without running it.

    Raises:
        CheckpointError: when the file is missing, cannot be read, or says nothing.
        ConfigError: when the extra ``export`` is not installed and the file needs it.
    """
    path = _existing(path)
    if format_of(path) == "onnx":
        return _described(_session(path, torch.device("cpu")).get_modelmeta().custom_metadata_map.get(FILE_NAME), path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.split("/", 1)[-1] == f"extra/{FILE_NAME}"]
            text = archive.read(names[0]).decode("utf-8") if names else None
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise CheckpointError(f"damaged, or no exported network ({error})", where=str(path)) from error
    return _described(text, path)


class ExportedNetwork(nn.Module):
    """A network read from an exported file. It predicts in float32 and cannot be trained.

    Args:
        path: a file that ``python -m medmamba_monai export`` wrote.
        device: where it shall run.

    Attributes:
        info: what the file says of itself.
        format: a name of :data:`FORMATS`.

    Raises:
        CheckpointError: when the file is missing, damaged or says nothing of itself.
        ConfigError: when the extra ``export`` is not installed and the file needs it.
        BackendError: when the file cannot run on the device.
    """

    def __init__(self, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> None:
        super().__init__()
        self.info = read_info(path)
        self.path, self.format = Path(path), format_of(path)
        self.num_classes, self.in_channels = len(self.info.class_names), self.info.channels
        opened = {"torchscript": _torchscript, "onnx": _onnx, "torch_export": _torch_export}[self.format]
        self._run: Run = opened(self.path, torch.device(device))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, *image_size) to logits (B, num_classes).

        Raises:
            ConfigError: for images of another shape; only TorchScript takes every size.
        """
        wanted = [self.info.channels, *self.info.image_size]
        given = list(x.shape[1:])
        if self.format == "torchscript":
            wanted, given = wanted[:1], given[:1]
        if given != wanted:
            raise ConfigError(
                f"images of shape {tuple(x.shape[1:])}; the file was exported for {tuple(wanted)}",
                where=str(self.path),
                remedy="use the preprocessing the network was trained with",
            )
        with torch.autocast(x.device.type, enabled=False):
            return self._run(x.float())

    def train(self, mode: bool = True) -> ExportedNetwork:
        """Stay in evaluation mode, the only one there is."""
        self.training = False
        return self


def _existing(path: str | os.PathLike[str]) -> Path:
    if not Path(path).is_file():
        raise CheckpointError(
            "there is no such file", where=str(path), remedy="write it with `python -m medmamba_monai export`"
        )
    return Path(path)


def _described(text: str | None, path: Path) -> ModelInfo:
    fields = dataclasses.fields(ModelInfo)
    needed = {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    try:
        values = json.loads(text or "null")
    except ValueError as error:
        raise CheckpointError(f"its description cannot be read ({error})", where=str(path)) from error
    if not isinstance(values, dict) or not needed <= set(values):
        raise CheckpointError(
            "the file does not say which classes, image size and preprocessing it was made for",
            where=str(path),
            remedy="export the trained weights with `python -m medmamba_monai export`",
        )
    return ModelInfo(**{field.name: values[field.name] for field in fields if field.name in values})


def _torchscript(path: Path, device: torch.device) -> Run:
    try:
        module = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"no TorchScript file ({_first_line(error)})", where=str(path)) from error
    return lambda x: module(x)


def _torch_export(path: Path, device: torch.device) -> Run:
    program = pt2.load(path)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    module = program.module()
    return lambda x: module(x)


def _onnx(path: Path, device: torch.device) -> Run:
    session = _session(path, device)
    image = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {image: x.cpu().numpy()})[0]).to(x.device)


def _session(path: Path, device: torch.device) -> Any:
    (onnxruntime,) = require("onnxruntime")
    provider = "CPUExecutionProvider" if device.type == "cpu" else "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise BackendError(
            f"this onnxruntime has no {provider} for the device {device}",
            where=str(path),
            remedy="give --device cpu, or install onnxruntime-gpu",
        )
    try:
        return onnxruntime.InferenceSession(str(path), providers=[provider])
    except Exception as error:  # onnxruntime raises types of its own, which are not exported
        if type(error).__module__.partition(".")[0] != "onnxruntime":
            raise
        raise CheckpointError(f"no ONNX file ({_first_line(error)})", where=str(path)) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
