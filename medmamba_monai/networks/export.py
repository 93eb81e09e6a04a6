"""Writing a network to TorchScript, ONNX or torch.export: files that run where this package is not installed.

Every format takes the aten-only form of the scan. A file is read back and compared with the network before it gets its
name. Imports exported, medmamba and torch; the ONNX packages where they are used.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import CheckpointError, ConfigError
from .exported import FORMATS, ExportedNetwork, require
from .medmamba import MedMamba
from .model_info import FILE_NAME, ModelInfo

__all__ = ["BATCH_SIZES", "OPSET", "TOLERANCE", "Written", "export_network", "portable"]

OPSET = 20
"""The version of ONNX's operators that is written."""

TOLERANCE = 1e-4
"""Largest difference of a logit from the network's."""

BATCH_SIZES = (1, 3)
"""Images at once in the comparison; neither is the number the network is exported with."""


@dataclasses.dataclass(frozen=True)
class Written:
    """A file that was written, and the largest difference of its logits from the network's."""

    path: Path
    format: str
    difference: float


def portable(network: nn.Module) -> nn.Module:
    """Return an equal network on the CPU in evaluation mode, with the choice of the scan's form left to the export.

    Args:
        network: any; left as it is.
    """
    if isinstance(network, MedMamba):
        twin: nn.Module = MedMamba(**{**network.config, "scan_backend": None, "gradient_checkpointing": False})
        twin.load_state_dict(network.state_dict())
    else:
        twin = copy.deepcopy(network).cpu()
    return twin.eval().requires_grad_(False)


def export_network(network: nn.Module, info: ModelInfo, files: Mapping[str, Path]) -> Iterator[Written]:
    """Write a network in one or more formats and compare each file with it.

    TorchScript takes images of every size; ONNX and torch.export those of ``info.image_size``. All take any batch.

    Args:
        network: trained; its first argument is called x.
        info: what is written into each file, so that it can be used rightly.
        files: where to write, by format.

    Yields:
        Each file, once it is in its place.

    Raises:
        ConfigError: for an unknown format, or when a package of the extra ``export`` is missing.
        CheckpointError: when a file does not give the network's logits; nothing is left in its place.
    """
    for name in files:
        if name not in FORMATS:
            raise ConfigError(f"unknown format {name!r}", remedy=f"use one of {', '.join(FORMATS)}")
    if "onnx" in files:
        require("onnx", "onnxscript", "onnxruntime")
    network, text = portable(network), _description(info)
    program: ExportedProgram | None = None
    for name, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder, _quiet(), torch.no_grad():
            draft = Path(folder) / f"model{FORMATS[name]}"
            if name == "torchscript":
                torch.jit.save(torch.jit.script(network), str(draft), _extra_files={FILE_NAME: text})
            else:
                program = program or _program(network, info)
                if name == "onnx":
                    _save_onnx(program, draft, text)
                else:
                    torch.export.save(program, draft, extra_files={FILE_NAME: text})
            difference = _difference(network, ExportedNetwork(draft), path)
            draft.replace(path)
        yield Written(path, name, difference)


def _description(info: ModelInfo) -> str:
    from medmamba_monai import __version__

    made_with = {"medmamba_monai": __version__, "torch": torch.__version__, "opset": OPSET}
    described = dataclasses.replace(info, extra={**info.extra, "exported_with": made_with})
    return json.dumps(dataclasses.asdict(described), ensure_ascii=False)


def _images(info: ModelInfo, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, info.channels, *info.image_size, generator=generator)


def _program(network: nn.Module, info: ModelInfo) -> ExportedProgram:
    return torch.export.export(network, (_images(info, 2),), dynamic_shapes={"x": {0: Dim("batch", min=1)}})


def _save_onnx(program: ExportedProgram, path: Path, text: str) -> None:
    import onnx

    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )
    if exported is None:
        raise CheckpointError("torch wrote no ONNX program", where=str(path))
    model = exported.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = FILE_NAME, text
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _difference(network: nn.Module, exported: ExportedNetwork, path: Path) -> float:
    largest = 0.0
    for batch in BATCH_SIZES:
        images = _images(exported.info, batch)
        largest = max(largest, float((exported(images) - network(images)).abs().max()))
    if not largest <= TOLERANCE:  # NaN is a difference too
        raise CheckpointError(
            f"the {exported.format} file's logits differ from the network's by {largest:.3g}, more than {TOLERANCE}",
            where=str(path),
            remedy="nothing was written; please report it with the versions `python -m medmamba_monai doctor` prints",
        )
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks on themselves (deprecations, packages they could also use) from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
