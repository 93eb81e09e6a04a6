"""A trained bundle opened outside a run of its own: the network, what its outputs mean, how files become its input.

The bundle's inference.json is read as a run would read it, so that preprocessing, overrides and checks are the same.
Imports data, handlers and networks; needs monai.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from monai.transforms import Compose, SpatialResample
from numpy.typing import NDArray
from torch import Tensor, nn

from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.engines.precision import is_on
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.handlers import load_weights_for_inference
from medmamba_monai.handlers.checkpoint import MODEL_NAME
from medmamba_monai.networks.model_info import FILE_NAME, ModelInfo

__all__ = ["PreparedImage", "TrainedBundle", "find_places", "open_trained", "read_prepared"]

_DIGEST_KEY = "digest_of_preprocessing"


@dataclass(frozen=True)
class PreparedImage:
    """One file on its way into the network, with the way back.

    Attributes:
        tensor: (C, *spatial) float32, what the network takes.
        picture: (C, *size) float32 as the file was read, before anything was resized: in [0, 1], or in the file's own
            units where the preprocessing reads them (``scale`` None).
        affine: (4, 4), voxel indices of ``picture`` to mm in RAS; the identity where the file has none.
        stored_orientation: where the axes of a NIfTI file run to, such as "RAS"; "" for other files.
    """

    tensor: Tensor
    picture: NDArray[np.float32]
    affine: NDArray[np.float64]
    _tracked: MetaTensor
    _transforms: Compose
    stored_orientation: str = ""

    def to_file(self, maps: Tensor, per_pixel: bool = False) -> NDArray[np.float32]:
        """Bring maps back into the pixels of the file.

        In two dimensions MONAI undoes the spatial steps of the preprocessing; volumes go by their affines, which every
        step keeps, and are 0 outside of what the network saw.

        Args:
            maps: (K, *spatial), in the pixels of ``tensor``.
            per_pixel: values are shares that sum over the image: they are divided among the pixels of the file, by the
                areas (volumes) that the affines give pixels of both.

        Returns:
            (K, *size).
        """
        moved = MetaTensor(maps.detach().float().cpu(), meta=dict(self._tracked.meta))
        if per_pixel:
            of_file, of_tensor = (np.linalg.det(np.asarray(m)[:3, :3]) for m in (self.affine, self._tracked.affine))
            moved = moved * abs(of_file / of_tensor)
        if maps.ndim == 4:
            back = SpatialResample(mode="bilinear", padding_mode="zeros")
            volume = back(moved, dst_affine=torch.as_tensor(self.affine), spatial_size=self.picture.shape[1:])
            return np.asarray(torch.as_tensor(volume).numpy(), dtype=np.float32)
        moved.applied_operations = list(self._tracked.applied_operations)
        undone = self._transforms.inverse({"image": moved})["image"]
        return np.asarray(undone.as_tensor().numpy(), dtype=np.float32)


@dataclass(frozen=True)
class TrainedBundle:
    """Network, weights and preprocessing that belong together.

    Attributes:
        network: with its trained weights, in evaluation mode, on its device.
        info: what model.json says of them.
        class_names: in the order of the network's outputs.
        device: of the network.
        preprocessing: from a file's path to the network's input.
        amp: whether the bundle's inference computes in bfloat16.
    """

    network: nn.Module
    info: ModelInfo
    class_names: list[str]
    device: torch.device
    preprocessing: Compose
    amp: bool = False

    def read(self, path: str) -> PreparedImage:
        """Read and preprocess one file.

        Raises:
            DataError: the file cannot be read as it is.
        """
        return read_prepared(self.preprocessing, path)


def read_prepared(preprocessing: Compose, path: str) -> PreparedImage:
    """Read and preprocess one file as a bundle's preprocessing does.

    Raises:
        DataError: the file cannot be read as it is.
        ConfigError: the preprocessing gives no image with its metadata.
    """
    item: dict[Any, Any] = {"image": path}
    picture = tracked = None
    steps = list(preprocessing.flatten().transforms)
    with _clear_errors():
        for position, step in enumerate(steps):
            item = step(item)
            if isinstance(item["image"], MetaTensor):
                picture = item["image"] if picture is None else picture
                tracked, kept = item["image"], steps[: position + 1]
    if picture is None or tracked is None:
        raise ConfigError(
            "no step of the preprocessing gives an image with its metadata",
            where="inference.json, preprocessing",
            remedy="read images with medmamba_monai.data.ReadImaged",
        )
    affine = np.asarray(picture.affine, dtype=np.float64)
    shown = np.asarray(picture.as_tensor().numpy(), dtype=np.float32)
    tensor = torch.as_tensor(item["image"]).as_subclass(Tensor).float()
    return PreparedImage(tensor, shown, affine, tracked, Compose(kept), str(picture.meta.get("stored_orientation", "")))


def _usable(device: str) -> str:
    """The device, if tensors can be made there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{device!r} cannot be used: {reason}", where="device", remedy="cpu, cuda or cuda:1"
        ) from error
    return device


class _clear_errors:
    """Turn MONAI's wrapping of an error of this package back into that error."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        reason = root_cause(error)
        if reason is not None and reason is not error:
            raise reason from error


def find_places(model: Path, bundle: Path | None = None) -> tuple[Path, Path]:
    """Tell a bundle from a folder of weights.

    Args:
        model: a bundle (its ``models`` folder holds the weights), or a folder with model.pt and model.json.
        bundle: the bundle whose preprocessing goes with a folder of weights; None where the folder lies in it.

    Returns:
        The bundle's folder and the weights' folder.

    Raises:
        ConfigError: the bundle is not known, or two are.
        CheckpointError: there are neither bundle nor weights.
    """
    if _is_bundle(model):
        if bundle is not None:
            raise ConfigError(f"{model} is a bundle already", remedy="leave --bundle out, or give a folder of weights")
        return model, model / "models"
    if not ((model / FILE_NAME).is_file() or (model / MODEL_NAME).is_file()):
        raise CheckpointError(
            f"neither a bundle (configs/inference.json) nor a folder of weights ({MODEL_NAME}, {FILE_NAME})",
            where=str(model),
            remedy="give a bundle's folder, or the ckpt_dir of a training",
        )
    root = model.absolute().parent if bundle is None else bundle
    if not _is_bundle(root):
        raise ConfigError(
            "there is no configs/inference.json, so the preprocessing is not known",
            where=str(root),
            remedy="name the bundle these weights were trained with by --bundle",
        )
    return root, model


def _is_bundle(folder: Path) -> bool:
    return (folder / "configs" / "inference.json").is_file()


def open_trained(
    model: Path,
    bundle: Path | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> TrainedBundle:
    """Build the network of a trained bundle, load its weights, and check that the preprocessing is theirs.

    Args:
        model: see :func:`find_places`.
        bundle: see :func:`find_places`.
        device: "cpu", "cuda"; None for the bundle's choice.
        settings: keys of inference.json to override, such as ``window``, as in training.

    Raises:
        ConfigError: a place or key that does not exist.
        CheckpointError: weights that are missing, damaged, or trained with another preprocessing.
    """
    root, weights = find_places(model, bundle)
    info = ModelInfo.load(weights)
    overrides: dict[str, Any] = {**(settings or {}), "ckpt_dir": str(weights), "bundle_root": str(root.absolute())}
    if device is not None:
        overrides["device"] = _usable(device)
    with _clear_errors():
        workflow = ConfigWorkflow(
            str(root / "configs" / "inference.json"), workflow_type="infer", logging_file=False, **overrides
        )
        workflow.initialize()
        parser = workflow.parser
        parser[_DIGEST_KEY] = "$runtime.config_digest()"
        network: nn.Module = parser.get_parsed_content("network")
        load_weights_for_inference(
            network,
            weights,
            channels=parser.get_parsed_content("in_channels"),
            preprocessing_digest=parser.get_parsed_content(_DIGEST_KEY),
        )
        preprocessing = parser.get_parsed_content("preprocessing")
        classes = list(parser.get_parsed_content("classes"))
        place = torch.device(parser.get_parsed_content("device"))
        amp = is_on(parser.get_parsed_content("amp"))
    return TrainedBundle(network.eval(), info, classes, place, preprocessing, amp)
