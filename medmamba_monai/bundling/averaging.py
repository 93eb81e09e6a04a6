"""What evaluation and inference average: views by the flips of training, and further networks. Called by configs.

Imports engines, handlers and networks; needs MONAI.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.transforms import RandFlipd
from torch import nn

from medmamba_monai import networks
from medmamba_monai.engines.averaging import AveragingInferer, views_of
from medmamba_monai.errors import CheckpointError, ConfigError
from medmamba_monai.handlers import load_weights_for_inference
from medmamba_monai.handlers.checkpoint import MODEL_NAME
from medmamba_monai.handlers.files import sha256_of
from medmamba_monai.handlers.hooks import is_rank_zero
from medmamba_monai.networks.model_info import FILE_NAME, ModelInfo

if TYPE_CHECKING:
    from medmamba_monai.bundling.splits import Splits

__all__ = ["Averaging", "flips_of"]

logger = logging.getLogger(__name__)


def flips_of(transform: Any, dimensions: int) -> list[list[int]]:
    """List the random flips of images in a training's preprocessing, each by the spatial axes that it turns together.

    Args:
        transform: a transform, or a composition of them.
        dimensions: spatial axes of the images.

    Example:
        >>> flips_of([RandFlipd("image", 0.5, spatial_axis=-1), RandFlipd("image", 0.0, spatial_axis=0)], 2)
        [[1]]
    """
    found: list[list[int]] = []
    for each in _within(transform):
        if isinstance(each, RandFlipd) and each.prob > 0 and "image" in each.keys:
            axis = each.flipper.spatial_axis
            axes = range(dimensions) if axis is None else [axis] if isinstance(axis, int) else axis
            flip = sorted({int(number) % dimensions for number in axes})
            if flip not in found:
                found.append(flip)
    return sorted(found)


def _within(transform: Any) -> Iterator[Any]:
    parts = transform if isinstance(transform, (list, tuple)) else getattr(transform, "transforms", None)
    if parts is None:
        yield transform
    else:
        for part in parts:
            yield from _within(part)


class Averaging:
    """Checks what is asked to be averaged, and knows the flips and the networks for it.

    Args:
        info: of the network in ``ckpt_dir``, or of the exported one.
        ckpt_dir: folder of its weights.
        tta: average the views that the random flips of training lead to.
        ensemble: folders of further weights (model.pt, model.json), a list or one; null: none.
        exported: file that predicts in place of the weights.
        fitted: names of options that use what was fitted on single predictions → whether they are on.

    Attributes:
        flips: each by the spatial axes it turns; none without ``tta``.
        members: description of each further network by its folder.

    Raises:
        CheckpointError: no flips are recorded, or a folder does not fit; it is named.
        ConfigError: options that exclude one another.
    """

    def __init__(
        self,
        info: ModelInfo,
        ckpt_dir: str,
        tta: bool = False,
        ensemble: str | Sequence[str] | None = None,
        exported: str | None = None,
        **fitted: bool,
    ) -> None:
        folders = [ensemble] if isinstance(ensemble, str) else list(ensemble or [])
        if folders and exported is not None:
            raise ConfigError(
                "an exported file is not averaged with weights",
                where="ensemble",
                remedy="leave --exported out and give folders of weights, or leave --ensemble out",
            )
        self.info, self.flips = info, _recorded_flips(info) if tta else []
        self.members = {folder: _described(folder) for folder in folders}
        _refuse_repeated(ckpt_dir, folders)
        for folder, member in self.members.items():
            _check_fit(folder, member, info, tta)
        for name, wanted in fitted.items():
            if wanted and self.on:
                raise ConfigError(
                    f"{name} uses what was fitted on single predictions, and averages are another thing",
                    where=" and ".join(key for key, given in (("tta", tta), ("ensemble", folders)) if given),
                    remedy=f"leave --{name} out, or predict without averaging",
                )

    @property
    def on(self) -> bool:
        """Whether anything is averaged."""
        return bool(self.flips or self.members)

    @property
    def remarks(self) -> dict[str, Any]:
        """What metrics.json says of it: the number of views and of networks, and a leak of a further one's training."""
        leaks = [member.extra["leakage"] for member in self.members.values() if "leakage" in member.extra]
        counts = {"views": len(views_of(self.flips)), "members": 1 + len(self.members)}
        return {**({"averaged": counts} if self.on else {}), **({"leakage": leaks[0]} if leaks else {})}

    def networks(self, device: str | torch.device = "cpu") -> list[nn.Module]:
        """Build the further networks, with their weights, for evaluation.

        Args:
            device: where the images will be.

        Raises:
            CheckpointError: weights are missing, damaged or of another network.
        """
        built: list[nn.Module] = []
        for folder, member in self.members.items():
            network = networks.MedMamba(**{key: value for key, value in member.network.items() if key != "preset"})
            load_weights_for_inference(network, folder)
            built.append(network.to(device).eval())
        return built

    def check_parts(self, splits: Splits) -> None:
        """Refuse further networks that were trained on the same files in other parts.

        Raises:
            CheckpointError: naming the folder.
        """
        for folder, member in self.members.items():
            try:
                splits.check_same_parts(member.extra.get("trained_on"))
            except CheckpointError as error:
                raise CheckpointError(
                    error.what, where=f"ensemble {folder}", remedy="average networks of one training's data list only"
                ) from error

    def tell(self, inferer: Any) -> None:
        """Log what is averaged; the first process does it.

        Raises:
            ConfigError: another inferer stands where it would be done.
        """
        if not self.on:
            return
        if not isinstance(inferer, AveragingInferer):
            raise ConfigError(
                f"the inferer is a {type(inferer).__name__}, which would not average",
                where="tta, ensemble",
                remedy="leave them or the inferer out",
            )
        if is_rank_zero():
            flips = f" (flips along the axes {self.flips})" if self.flips else ""
            logger.info(
                "averages %d views%s of %d networks%s",
                *(len(inferer.views), flips, 1 + len(inferer.members)),
                "".join(f", {folder}" for folder in self.members),
            )


def _recorded_flips(info: ModelInfo) -> list[list[int]]:
    flips = info.extra.get("flips")
    if flips is None:
        raise CheckpointError(
            "it does not say by which flips the network was trained: it was trained before that was recorded",
            where=f"tta, {FILE_NAME}",
            remedy='leave --tta out, train anew, or put what training used under extra: "flips": [[1]] for left-right',
        )
    axes = range(info.spatial_dims)
    if not isinstance(flips, list) or not all(
        isinstance(flip, list) and flip and all(axis in axes for axis in flip) for flip in flips
    ):
        raise CheckpointError(
            f"flips {flips!r} are no list of lists of axes below {info.spatial_dims}",
            where=f"tta, {FILE_NAME}",
            remedy='write one list a flip, as "flips": [[0], [1]]',
        )
    if not flips:
        raise CheckpointError(
            "the network was trained without flips, so flipped images are nothing it knows",
            where=f"tta, {FILE_NAME}",
            remedy="leave --tta out",
        )
    return flips


def _described(folder: str) -> ModelInfo:
    member = ModelInfo.load(folder)
    if not member.network:
        raise CheckpointError(
            f"{FILE_NAME} does not describe the network, so it is none of this package and cannot be built",
            where=f"ensemble {folder}",
            remedy="average networks of this package only",
        )
    return member


def _refuse_repeated(ckpt_dir: str, folders: Sequence[str]) -> None:
    """One network counted twice would only weigh more."""
    seen: dict[str, str] = {}
    for folder in [ckpt_dir, *folders] if folders else []:
        file = Path(folder) / MODEL_NAME
        if not file.is_file():
            continue  # what loads the weights says so
        digest = sha256_of(file)
        if digest in seen:
            raise CheckpointError(
                f"has the same weights as {seen[digest]}", where=f"ensemble {folder}", remedy="name every network once"
            )
        seen[digest] = folder


def _check_fit(folder: str, member: ModelInfo, info: ModelInfo, tta: bool) -> None:
    """Compare with the network in ckpt_dir, which is itself compared with the run."""
    try:
        member.check(info.class_names or None, info.channels, info.preprocessing_digest or None, info.task)
    except CheckpointError as error:
        raise CheckpointError(error.what, where=f"ensemble {folder}", remedy=error.remedy) from error
    pairs = {
        "spatial dimensions": (member.spatial_dims, info.spatial_dims),
        "image size": (list(member.image_size), list(info.image_size)),
        "flips": (_recorded_flips(member), info.extra["flips"]) if tta else (None, None),
    }
    for name, (its, here) in pairs.items():
        if its != here:
            raise CheckpointError(
                f"the weights were trained with {name} {its}, those in ckpt_dir with {here}",
                where=f"ensemble {folder}",
                remedy="average networks that were trained alike",
            )
