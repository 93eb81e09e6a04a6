"""What the bundle configs call at run time, under one name: ``$runtime.<function>(...)``."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser, ConfigWorkflow
from torch import nn

from medmamba_monai import networks
from medmamba_monai.bundling.averaging import Averaging, flips_of
from medmamba_monai.bundling.calibrate import fit_calibration
from medmamba_monai.bundling.calibration import (
    SafetyReport,
    StoredCalibration,
    TemperProbabilitiesd,
    stored_calibration,
)
from medmamba_monai.bundling.keys import KEYS
from medmamba_monai.bundling.logged_model import LoggedModel
from medmamba_monai.bundling.overrides import check_overrides, running, running_with
from medmamba_monai.bundling.reporting import explain_failures
from medmamba_monai.bundling.splits import Splits
from medmamba_monai.data import preprocessing_digest
from medmamba_monai.engines.precision import amp_supported
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.handlers import load_weights_for_inference
from medmamba_monai.handlers.hooks import is_rank_zero
from medmamba_monai.handlers.mlflow_client import shown_uri
from medmamba_monai.networks.exported import ExportedNetwork, read_info
from medmamba_monai.networks.model_info import FILE_NAME, ModelInfo

__all__ = [
    "Averaging",
    "ModelCheckpointLoader",
    "SafetyReport",
    "Splits",
    "TemperProbabilitiesd",
    "begin",
    "bundle_root",
    "calibration_of",
    "config_digest",
    "default_amp",
    "default_workers",
    "fit_calibration",
    "items_in_memory",
    "local_device",
    "logged_model",
    "model_info",
    "recorded_config",
    "save_config",
    "spatial_size",
    "tell_outputs",
    "trained_info",
    "trained_network",
    "with_pretrained",
]

DEFAULT_DATASET_DIR = "$@bundle_root + '/data'"
"""What the bundles' configs say of dataset_dir where a run says nothing."""

logger = logging.getLogger(__name__)


def begin() -> None:
    """First step of every run: check the overrides, settle bundle_root, let a failure end with its reason.

    The bundle's folder is known only while the workflow is at work, so it is written into the config here.
    """
    explain_failures()
    check_overrides()
    parser = _parser()
    if "bundle_root" in parser:
        parser.get()["bundle_root"] = parser.get_parsed_content("bundle_root")
    _refuse_unnamed_download(parser.get())


def _refuse_unnamed_download(config: dict[str, Any]) -> None:
    """A download goes into a folder that the user named, never into a default one."""
    if config.get("download", False) is not False and config.get("dataset_dir") == DEFAULT_DATASET_DIR:
        raise ConfigError("does not say where to", where="download", remedy="give --dataset_dir FOLDER as well")


def bundle_root() -> str:
    """Return the bundle that the running workflow's config file lies in, or "." where that is not known.

    MONAI Deploy parses the config without a workflow; what does so knows the bundle as its ``bundle_path``.
    """
    workflow = running(ConfigWorkflow)
    if workflow is not None and workflow.config_root_path.name == "configs":
        return str(workflow.config_root_path.absolute().parent)
    path = getattr(running_with("bundle_path"), "bundle_path", None)
    return str(Path(path).absolute()) if isinstance(path, (str, Path)) else "."


def spatial_size(image_size: int | Sequence[int], dimensions: int = 2) -> list[int]:
    """Return one length an axis.

    Args:
        image_size: one length for all axes, or one each (rows first).
        dimensions: number of axes.

    Raises:
        ConfigError: the number of lengths is wrong.

    Example:
        >>> spatial_size(64), spatial_size([64, 96])
        ([64, 64], [64, 96])
    """
    lengths = [image_size] * dimensions if isinstance(image_size, int) else list(image_size)
    if len(lengths) != dimensions:
        raise ConfigError(
            f"image_size {image_size} has not {dimensions} lengths", remedy="give one number, or one an axis"
        )
    return lengths


def items_in_memory(shape: Sequence[int], gigabytes: float = 2.0) -> int:
    """Return how many float32 arrays of ``shape`` fit in ``gigabytes``.

    Example:
        >>> items_in_memory([1, 224, 224])
        9964
    """
    return int(gigabytes * 1e9 / (4 * math.prod(shape)))


def default_workers() -> int:
    """Return loader processes: none beside a CPU that computes, up to four beside a GPU."""
    return min(4, os.cpu_count() or 1) if torch.cuda.is_available() else 0


def default_amp(device: str | torch.device) -> bool:
    """Return True for GPUs with bfloat16 arithmetic; few CPUs are faster with it, so there it is a choice."""
    return torch.device(device).type == "cuda" and amp_supported(device)


def local_device() -> torch.device:
    """Return the device of this process under torchrun: its own GPU, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def with_pretrained(network: nn.Module, path: str | None) -> nn.Module:
    """Return ``network``, with the weights of ``path`` when one is given.

    Raises:
        CheckpointError: the file is missing or does not fit.
        ConfigError: the network is not a MedMamba.
    """
    if path is not None:
        if not isinstance(network, networks.MedMamba):
            raise ConfigError(
                f"pretrained weights are for a MedMamba, network_def is a {type(network).__name__}",
                where="pretrained",
                remedy="leave pretrained out, or load the weights inside network_def",
            )
        for note in networks.load_pretrained(network, path):
            logger.info("pretrained weights %s: %s", path, note)
    return network


def config_digest(key: str = "preprocessing") -> str:
    """Return a digest of one section of the running config, its references to plain values filled in.

    Args:
        key: id of the section.

    Raises:
        ConfigError: called from elsewhere than a config expression.
    """
    return preprocessing_digest(_plain(_parser()[key]))


def _parser() -> ConfigParser:
    parser = running(ConfigParser)
    if parser is None:
        raise ConfigError("no config is being evaluated", remedy="call this from a config expression only")
    return parser


def _plain(value: Any) -> Any:
    """Return raw config with ``@key`` replaced by what plain value the key has; expressions stay as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str) and value.startswith("@"):
        return _plain(_parser().get_parsed_content(value[1:]))
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def model_info(
    network: nn.Module, splits: Splits, size: Sequence[int], channels: int, transform: Any = ()
) -> ModelInfo:
    """Describe the network being trained, for model.json beside its weights.

    Args:
        network: the network, not yet wrapped for several processes.
        splits: the data it is trained on.
        size: length of each image axis.
        channels: of the images.
        transform: what training images go through, whose random flips are recorded.
    """
    config = dict(getattr(network, "config", {}))
    return ModelInfo(
        class_names=splits.class_names,
        channels=channels,
        spatial_dims=len(size),
        image_size=list(size),
        network=config,
        preprocessing_digest=config_digest(),
        extra={
            "preset": networks.preset_name(config),
            "trained_on": splits.fingerprint,
            "flips": flips_of(transform, len(size)),
            **splits.remarks,
        },
        task=splits.task,
    )


def trained_info(ckpt_dir: str, exported: str | None = None) -> ModelInfo:
    """Describe the trained network: as model.json beside its weights does, or the exported file itself.

    An evaluation that is given its weights by others, as in federated learning, needs none of its own; before its first
    training it is described by the bundle's keys and metadata.

    Args:
        ckpt_dir: folder of the weights.
        exported: file of `python -m medmamba_monai export`; null: none.

    Raises:
        CheckpointError: there is no description, or none that can be read.
    """
    if exported is not None:
        return read_info(exported)
    parser = running(ConfigParser)
    if parser is None or not _weights_are_given(parser) or (Path(ckpt_dir) / FILE_NAME).is_file():
        return ModelInfo.load(ckpt_dir)
    image = parser["_meta_"]["network_data_format"]["inputs"]["image"]
    channels, dimensions = (parser.get_parsed_content(key) for key in ("in_channels", "spatial_dims"))
    network = networks.create(parser.get_parsed_content("preset"), in_channels=channels, spatial_dims=dimensions)
    return ModelInfo([], channels, dimensions, list(image["spatial_shape"]), network.config, "", {})


def calibration_of(
    ckpt_dir: str,
    class_names: Sequence[str],
    task: str,
    exported: str | None,
    required: bool,
    averaged: bool = False,
) -> StoredCalibration:
    """Read the calibration of the weights that this run uses; see `stored_calibration`.

    Of averaged predictions, only what tells unusual images holds.

    Raises:
        CheckpointError: it is required, and there is none for these weights.
    """
    parser = running(ConfigParser)
    given = parser is not None and _weights_are_given(parser)
    found = stored_calibration(ckpt_dir, class_names, task, exported, required, weights_given=given)
    return found.for_averages() if averaged else found


def _weights_are_given(parser: ConfigParser) -> bool:
    """Whether the evaluator's loader of weights is disabled, as MONAI's federated client does with it."""
    loaders = [h for h in parser.get("validate", {}).get("handlers", []) if "CheckpointLoader" in h.get("_target_", "")]
    return bool(loaders) and all(loader.get("_disabled_") is True for loader in loaders)


def trained_network(
    info: ModelInfo, exported: str | None = None, device: str | torch.device = "cpu", **changes: Any
) -> nn.Module:
    """Build the network that model.json describes, whose weights are loaded later, or take an exported one.

    Args:
        info: from `trained_info`.
        exported: file of `python -m medmamba_monai export`; null: none.
        device: where an exported network shall run.
        changes: arguments that differ, as num_classes for a new head.

    Raises:
        CheckpointError: the weights belong to a network that is not of this package, or the file cannot be used.
        ConfigError: an exported network is asked to change.
    """
    if exported is not None:
        network = ExportedNetwork(exported, device)
        fixed = {"num_classes": network.num_classes, "in_channels": network.in_channels}
        for name, value in changes.items():
            if fixed.get(name) != value:
                raise ConfigError(
                    f"an exported network cannot change: {name}={value}",
                    where=exported,
                    remedy="use the weights, or export the changed network",
                )
        return network
    if not info.network:
        raise CheckpointError(
            "model.json does not describe the network",
            remedy="give the same --network_def as in training",
        )
    arguments = {key: value for key, value in info.network.items() if key != "preset"}
    return networks.MedMamba(**{**arguments, **changes})


class ModelCheckpointLoader:
    """Evaluator handler: loads the trained weights when the evaluator starts, if they are the right ones.

    An exported network has its weights; what it says of itself is checked as model.json is.

    Args:
        network: receives the weights.
        path: folder with model.pt and model.json.
        expected: class_names, task, channels and preprocessing_digest that model.json has to agree with.
        exported: the file the network was to be read from; null: none.
    """

    def __init__(self, network: nn.Module, path: str, exported: str | None = None, **expected: Any) -> None:
        self.network, self.path, self.exported, self.expected = network, path, exported, expected

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load the weights.

        Raises:
            CheckpointError: they are missing, damaged or made for something else.
            ConfigError: another network stands where the exported one should.
        """
        if isinstance(self.network, ExportedNetwork):
            self.network.info.check(**self.expected)
        elif self.exported is not None:
            raise ConfigError(
                f"the network is a {type(self.network).__name__}, not the exported file",
                where=f"exported {self.exported}",
                remedy="give --exported or --network_def, not both",
            )
        else:
            load_weights_for_inference(self.network, self.path, **self.expected)


def logged_model(bundle_root: str, ckpt_dir: str, wanted: bool) -> LoggedModel | None:
    """Return what MLflow records as the model when the running training has finished.

    Args:
        bundle_root: folder of the bundle.
        ckpt_dir: folder of the weights.
        wanted: False: record none.
    """
    return LoggedModel(bundle_root, ckpt_dir, _parser().get()) if wanted else None


def recorded_config() -> dict[str, Any]:
    """Return the running config for the record: keys to override with their values, the rest as written."""
    parser = _parser()
    names = {key.name for key in KEYS if key.kind != "any"}
    skipped = {"imports", "initialize", "run", "finalize", "_meta_"}
    record = {}
    for key, value in parser.get().items():
        if key not in skipped:
            is_expression = isinstance(value, str) and value[:1] in ("$", "@")
            record[key] = _plain(parser.get_parsed_content(key)) if key in names and is_expression else value
    return _without_password(record)


def _without_password(config: dict[str, Any]) -> dict[str, Any]:
    """The config without user and password in the address of the tracking server: records are read by others."""
    uri = config.get("tracking_uri")
    return config | ({"tracking_uri": shown_uri(uri)} if isinstance(uri, str) else {})


def save_config(output_dir: str, name: str, wanted: bool | str | None = True) -> None:
    """Write the config as it is run, overrides included, unless told not to; the first process does it.

    Args:
        output_dir: folder for the file.
        name: of the file.
        wanted: False: write nothing; a path: write there.
    """
    if not wanted or not is_rank_zero():
        return
    file = Path(wanted) if isinstance(wanted, str) else Path(output_dir) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    content = _without_password({key: value for key, value in _parser().get().items() if key != "_meta_"})
    temporary = file.with_name(f".{file.name}.new")
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(file)


def tell_outputs(*files: str) -> None:
    """Log where a run's results lie, and the scores where metrics.json is among them; the first process does it.

    Args:
        files: what the run wrote; those that do not exist are left out.
    """
    for file in map(Path, files):
        if not file.is_file() or not is_rank_zero():
            continue
        logger.info("wrote %s", file)
        if file.name == "metrics.json":
            _tell_scores(json.loads(file.read_text(encoding="utf-8")))


def _tell_scores(metrics: dict[str, Any]) -> None:
    """Log each score with its interval, where there is one, and what was resampled for it."""
    intervals = metrics.get("intervals", {})
    scores = [
        f"{name} {value:.4f}{_bounds(intervals.get(name))}"
        for name, value in metrics.items()
        if isinstance(value, float)
    ]
    how = metrics.get("resampling")
    note = f" ({how['level']:.0%} intervals over {how['clusters']} {how['unit']}s)" if how else ""
    logger.info("scores%s: %s", note, ", ".join(scores))


def _bounds(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
