"""MONAI's doors to ``read_image``: an ImageReader and a dictionary transform. Imports image; needs monai.

Importing this registers the reader with MONAI under the name "medmambaimagereader". It stands first in
MONAI's table, which is tried from the last to the first, so it is used only where it is asked for by name.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import ImageReader, MetaTensor
from monai.transforms import MapTransform
from monai.transforms.io.array import SUPPORTED_READERS

from medmamba_monai.data.decoded import Frame
from medmamba_monai.data.files import IMAGE_SUFFIXES, image_suffix
from medmamba_monai.data.image import MedicalImage, make_options, read_with
from medmamba_monai.data.memory import from_memory
from medmamba_monai.data.npz import split_member
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["MedMambaImageReader", "ReadImaged", "monai_meta", "register_reader"]


def monai_meta(image: MedicalImage) -> dict[str, Any]:
    """The part of an image's metadata that MONAI can collate into batches.

    The same keys and shapes for every file.
    """
    affine = np.asarray(image.meta.get("affine", np.eye(4)), dtype=np.float64)
    return {
        "filename_or_obj": image.meta["filename_or_obj"],
        "format": image.meta["format"],
        "original_channel_dim": 0,
        "spatial_shape": np.array(image.array.shape[1:]),
        "affine": affine,
        "original_affine": affine.copy(),
        "space": "RAS",
        # where the axes ran in the file itself; empty where that is not known
        "stored_orientation": str(image.meta.get("stored_orientation", "")),
        # not a number where the file does not say
        "spacing": np.array(image.meta.get("spacing", [np.nan] * (image.array.ndim - 1)), dtype=np.float64),
        "nonfinite": int(image.meta.get("nonfinite", 0)),
    }


class MedMambaImageReader(ImageReader):
    """``read_image`` as a MONAI reader: ``LoadImage(reader="MedMambaImageReader")``.

    Arrays come channels first, (C, H, W) or (C, H, W, D), rows first. LoadImage tries its other readers after
    one that fails, and then reports all their errors at once: ``ReadImaged`` gives the one clear message.

    Args:
        **options: as for ``medmamba_monai.data.read_image``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = make_options(**options)

    def verify_suffix(self, filename: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> bool:
        """Whether all names look like images this reader knows."""
        names = [filename] if isinstance(filename, (str, os.PathLike)) else list(filename)
        return all(
            image_suffix(os.fspath(name)) in IMAGE_SUFFIXES or split_member(os.fspath(name)) is not None
            for name in names
        )

    def read(
        self, data: Sequence[str | os.PathLike[str]] | str | os.PathLike[str], **kwargs: Any
    ) -> list[MedicalImage]:
        """Read one file or several.

        Raises:
            DataError: a file cannot be read as it is.
            ConfigError: keyword arguments were given; options belong to the constructor.
        """
        if kwargs:
            raise ConfigError(f"read() takes no options, got {sorted(kwargs)}", remedy="give them to the reader")
        names = [data] if isinstance(data, (str, os.PathLike)) else list(data)
        return [read_with(name, self.options) for name in names]

    def get_data(self, img: MedicalImage | Sequence[MedicalImage]) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        """Array and metadata; several files become channels of one array, with the metadata of the first.

        Raises:
            DataError: the files differ in size.
        """
        images = [img] if isinstance(img, MedicalImage) else list(img)
        for image in images[1:]:
            if image.array.shape[1:] != images[0].array.shape[1:]:
                raise DataError(
                    f"has the size {image.array.shape[1:]}, {images[0].meta['filename_or_obj']} has "
                    f"{images[0].array.shape[1:]}",
                    where=str(image.meta["filename_or_obj"]),
                    remedy="give files of one size to be read as channels of one image",
                )
        return np.concatenate([image.array for image in images]), monai_meta(images[0])


class ReadImaged(MapTransform):
    """Path to picture: the one loading transform for training, evaluation and inference.

    Puts a float32 ``MetaTensor``, in [0, 1] unless told otherwise, in place of each path, (C, H, W) or
    (C, H, W, D), rows first, with "filename_or_obj" (absolute path, or member of an archive) and the affine in
    its metadata. It can be pickled, so that data loaders may start their workers by spawning.

    A picture that is in memory already, as MONAI Deploy hands it, goes through the same steps; see ``from_memory``.

    Args:
        keys: keys of the paths.
        color: "grey" (1 channel) or "rgb" (3 channels).
        window: (centre, width) of physical values, in their units (HU for CT).
        frame: frame of a multi-frame file, or slice of a volume.
        spatial_dims: 2 or 3; files of another kind are refused.
        orientation: axes of volumes, see ``read_image``.
        nonfinite: "error" or "replace".
        max_pixels: largest number of pixels.
        series: UID or description of a DICOM series.
        scale: "unit" for [0, 1], None for values as stored, such as HU.
        allow_missing_keys: do nothing for an absent key.

    Example:
        >>> ReadImaged("image", color="grey").options.color
        'grey'
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        color: str | None = "rgb",
        window: Sequence[float] | None = None,
        frame: Frame = None,
        spatial_dims: int | None = 2,
        orientation: str | None = "PLS",
        nonfinite: str = "error",
        max_pixels: int | None = None,
        series: str | None = None,
        scale: str | None = "unit",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.options = make_options(
            color=color,
            window=window,
            frame=frame,
            series=series,
            spatial_dims=spatial_dims,
            orientation=orientation,
            nonfinite=nonfinite,
            max_pixels=max_pixels,
            scale=scale,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with pictures in place of paths.

        Raises:
            DataError: a file cannot be read as it is; the message names it.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            loaded = isinstance(item[key], (np.ndarray, torch.Tensor))
            image = from_memory(item[key], self.options) if loaded else read_with(item[key], self.options)
            item[key] = MetaTensor.ensure_torch_and_prune_meta(image.array, monai_meta(image))
        return item


def register_reader() -> None:
    """Make the reader known to MONAI by name, and drop the one that warns of an absent codec."""
    others = {name: reader for name, reader in SUPPORTED_READERS.items() if name != "medmambaimagereader"}
    try:
        has_codec = importlib.util.find_spec("nvidia.nvimgcodec") is not None
    except ModuleNotFoundError:
        has_codec = False
    if not has_codec:
        # each LoadImage would print a warning, also for PNG files
        others.pop("nvimgcodecpydicomreader", None)
    SUPPORTED_READERS.clear()
    SUPPORTED_READERS.update({"medmambaimagereader": MedMambaImageReader} | others)


register_reader()
