"""Fitting calibration.json: the kept weights look at the validation part once more. Called by configs, after training.

Imports handlers, engines, metrics; needs MONAI.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from torch import nn

from medmamba_monai.bundling.calibration import ARRAYS_NAME, FILE_NAME, weights_digest
from medmamba_monai.bundling.processes import on_first_process
from medmamba_monai.engines import AveragingInferer, EvaluationStep
from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers import FeatureRecorder, PredictionWriter
from medmamba_monai.handlers.checkpoint import MODEL_NAME
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder
from medmamba_monai.handlers.files import sha256_of, write_atomic, write_json
from medmamba_monai.handlers.hooks import is_rank_zero, unwrapped
from medmamba_monai.handlers.predictions import PREDICTIONS_NAME
from medmamba_monai.handlers.resume import load_network
from medmamba_monai.metrics import PredictionTable
from medmamba_monai.metrics.calibration import Calibration
from medmamba_monai.metrics.out_of_distribution import UnusualImages
from medmamba_monai.networks.exported import ExportedNetwork

__all__ = ["fit_calibration"]

logger = logging.getLogger(__name__)


def fit_calibration(
    network: nn.Module,
    dataloader: Any,
    inferer: Any,
    *,
    device: str | torch.device,
    ckpt_dir: str,
    class_names: Sequence[str],
    task: str = "multiclass",
    amp: bool | str = False,
    part: str = "validation",
    alpha: float = 0.1,
    criterion: str = "youden",
    groups: Mapping[str, str] | None = None,
) -> Path:
    """Predict the validation part with the weights in ``ckpt_dir`` and write calibration.json beside them.

    All processes of a training take part; the first one writes. The given network stays as it is: a copy gets the
    weights that were kept, which are not those of the last epoch, and with a moving average not the network's at all.

    Args:
        network: of the kind the weights are for; it may be wrapped for several processes.
        dataloader: gives the images of the part, in this process its share.
        inferer: MONAI's inferer, as in validation.
        device: where the network is.
        ckpt_dir: folder with model.pt.
        class_names: in the order of the network's outputs.
        task: "multiclass" or "multilabel".
        amp: bfloat16 autocast.
        part: of the data; nothing but validation is accepted.
        alpha: share of prediction sets that may lack the true class.
        criterion: "youden" or "f1", what thresholds maximise.
        groups: file name → patient or other group; None or empty: images are independent.

    Returns:
        The file.

    Raises:
        ConfigError: another part than validation, an exported network, averaged predictions, or a criterion or alpha
            that does not exist.
        CheckpointError: there are no weights, or they do not fit.
    """
    if part != "validation":
        raise ConfigError(
            f"split={part}: what is fitted on images cannot be judged on them",
            where="calibrate",
            remedy="give --split validation",
        )
    if isinstance(network, ExportedNetwork):
        raise ConfigError("an exported network is not fitted", where="calibrate", remedy="leave --exported out")
    if isinstance(inferer, AveragingInferer) and inferer.averages:
        raise ConfigError(
            "it is fitted on single predictions, not on averages",
            where="calibrate",
            remedy="leave --tta and --ensemble out",
        )
    folder, file = Path(ckpt_dir), Path(ckpt_dir) / FILE_NAME
    weights = on_first_process(lambda: CheckpointFolder(folder).load(MODEL_NAME))
    own = copy.deepcopy(unwrapped(network)).to(device)
    load_network(own, weights, folder / MODEL_NAME)
    recorder = FeatureRecorder()
    table = _predicted(own, dataloader, inferer, torch.device(device), amp, class_names, task, recorder, groups)
    if table is not None:
        calibration = Calibration.fit(table.labels, table.probabilities, table.class_names, task, alpha, criterion)
        unusual, remarks = UnusualImages.fit(*recorder.of(table.files), task, table.groups)
        calibration.remarks.extend(remarks)
        calibration.ood.update({} if unusual is None else _kept(unusual, folder / ARRAYS_NAME))
        content = calibration.to_json()
        write_json(file, {"format": content.pop("format"), "weights_sha256": weights_digest(folder), **content})
        for remark in calibration.remarks:
            logger.info("calibration: %s", remark)
    return file


def _predicted(
    network: nn.Module,
    dataloader: Any,
    inferer: Any,
    device: torch.device,
    amp: bool | str,
    class_names: Sequence[str],
    task: str,
    recorder: FeatureRecorder,
    groups: Mapping[str, str] | None,
) -> PredictionTable | None:
    """All processes' predictions on the first process, None on the others."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        evaluator = SupervisedEvaluator(
            device=device,
            val_data_loader=dataloader,
            network=network,
            inferer=inferer,
            iteration_update=EvaluationStep(amp),
            val_handlers=[recorder, PredictionWriter(folder, class_names, softmax=True, task=task, groups=groups)],
        )
        evaluator.run()
        return PredictionTable.read(Path(folder) / PREDICTIONS_NAME, task) if is_rank_zero() else None


def _kept(unusual: UnusualImages, file: Path) -> dict[str, Any]:
    """Write the arrays, and return what calibration.json says of them."""
    facts = unusual.facts()
    if unusual.gaussian is None:
        return facts
    from safetensors.torch import save

    arrays = {"mean": unusual.gaussian.mean, "whitening": unusual.gaussian.whitening}
    content = save({name: torch.from_numpy(values).float().contiguous() for name, values in arrays.items()})
    write_atomic(file, lambda stream: stream.write(content))
    return {**facts, "reference": file.name, "reference_sha256": sha256_of(file)}
