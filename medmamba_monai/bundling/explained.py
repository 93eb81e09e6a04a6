"""An explanation of one file written for people: the overlay, the raw map, what stands in index.json.

Imports explain, data, handlers and opened; needs monai and, where it draws, matplotlib.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medmamba_monai.bundling.opened import PreparedImage
from medmamba_monai.data.orientation import reorient, spacing_of
from medmamba_monai.explain import METHODS, Explanation
from medmamba_monai.explain.overlay import figure_png, overlay_figure
from medmamba_monai.explain.score import log_odds
from medmamba_monai.handlers.files import write_atomic
from medmamba_monai.handlers.predictions import NO_FINDING, SEPARATOR

__all__ = [
    "INDEX_NAME",
    "MAP",
    "OVERLAY",
    "against_mean",
    "file_stem",
    "in_file",
    "names_of",
    "route_shares",
    "write_map",
    "write_overlay",
]

INDEX_NAME = "index.json"
OVERLAY, MAP = "_overlay", "_map"  # what follows a file's name, so that no image has the name of its own explanation
_LONGEST = 100  # characters of a file's name


def file_stem(file: str, overlays: Sequence[str]) -> str:
    """A name for a file's explanation: its own without folders and ending, with a number where that is taken.

    Args:
        file: name of the image.
        overlays: names of overlays that exist.

    Example:
        >>> file_stem("benign/case 7.png", []), file_stem("malignant/case 7.png", ["benign_case_7_overlay.png"])
        ('benign_case_7', 'malignant_case_7')
    """
    plain = re.sub(r"(\.nii)?\.\w+$", "", file)
    stem = re.sub(r"[^\w.-]+", "_", plain).strip("._")[-_LONGEST:] or "image"
    taken = [name.removesuffix(f"{OVERLAY}.png") for name in overlays]
    numbered, number = stem, 2
    while numbered in taken:
        numbered, number = f"{stem}_{number}", number + 1
    return numbered


def names_of(flags: Sequence[bool], class_names: Sequence[str]) -> str:
    """Names of the classes an image has, as predictions.csv joins them.

    Example:
        >>> names_of([True, False, True], ["cyst", "mass", "scar"]), names_of([False], ["cyst"])
        ('cyst|scar', 'No Finding')
    """
    found = SEPARATOR.join(name for name, flag in zip(class_names, flags, strict=True) if flag)
    return found or ("" if NO_FINDING in class_names else NO_FINDING)


def in_file(prepared: PreparedImage, explanation: Explanation, number: int = 0) -> list[NDArray[np.float32]]:
    """The map of one image of a batch, then those of its routes, in the pixels of the file, each (*size)."""
    maps = torch.cat([explanation.maps[number], *[route[number] for route in explanation.routes.values()]])
    return list(prepared.to_file(maps, METHODS[explanation.method].per_pixel))


def route_shares(explanation: Explanation, number: int = 0) -> dict[str, Any]:
    """What index.json says of the routes of one image; nothing where they were not told apart.

    Returns:
        "routes": by name, ``sum`` (log-odds) and ``size``, the sum of absolute values as a share of all routes'.
    """
    parts = {name: route[number] for name, route in explanation.routes.items()}
    sizes = {name: float(part.abs().sum()) for name, part in parts.items()}
    whole = sum(sizes.values()) or 1.0
    told = {name: {"sum": float(part.sum()), "size": sizes[name] / whole} for name, part in parts.items()}
    return {"routes": told} if told else {}


def against_mean(network: nn.Module, images: Tensor, explanation: Explanation, task: str) -> dict[str, float]:
    """What index.json says beside the contributions of one image: the log-odds of the image and of its mean.

    Step sizes, gates and norms change with the image, which contributions leave out: their sum is not the difference.

    Args:
        network: in evaluation mode.
        images: (1, C, *spatial), what was explained.
        explanation: of it.
        task: "multiclass" or "multilabel".
    """
    mean = images.mean(tuple(range(2, images.ndim)), keepdim=True).expand_as(images)
    with torch.no_grad():
        both = log_odds(network(torch.cat([images, mean])), explanation.targets.repeat(2), task).tolist()
    return {"log_odds": both[0], "log_odds_of_mean_image": both[1]}


def write_overlay(
    path: Path,
    prepared: PreparedImage,
    maps: Sequence[NDArray[np.float32]],
    explanation: Explanation,
    title: str,
) -> None:
    """Draw the map over the file's picture, below it those of the routes.

    Args:
        path: of the PNG.
        prepared: the file.
        maps: from :func:`in_file`; its first alone leaves the routes out.
        explanation: whose method names the unit.
        title: file, class, probability.
    """
    method = METHODS[explanation.method]
    panels = list(zip(explanation.routes, maps[1:], strict=False)) if maps[0].ndim == 2 else []
    figure = overlay_figure(
        prepared.picture,
        maps[0],
        title=f"{title}\n{method.title}",
        unit=method.unit,
        signed=method.signed,
        spacing=spacing_of(prepared.affine),
        panels=panels,
        orientation=_orientation(prepared) if maps[0].ndim == 3 else "",
    )
    content = figure_png(figure)
    write_atomic(path, lambda stream: stream.write(content))


def _orientation(prepared: PreparedImage) -> str:
    """The sides a volume's axes run towards; empty where they may not be known: then the affine is spacings alone."""
    import nibabel

    turns = prepared.affine[:3, :3]
    unknown = np.array_equal(turns, np.diag(np.abs(np.diag(turns))))
    return "" if unknown else "".join(nibabel.aff2axcodes(prepared.affine))


def write_map(folder: Path, stem: str, prepared: PreparedImage, heat: NDArray[np.float32]) -> str:
    """Write the numbers of a map: .npy (rows, columns) of a picture, .nii.gz in the place of a volume.

    The map of a NIfTI file has the file's own axes and thereby its voxel grid, however the network looked at it.

    Returns:
        The name of the file.
    """
    if heat.ndim == 2:
        stream = io.BytesIO()
        np.save(stream, heat)
        name, content = f"{stem}{MAP}.npy", stream.getvalue()
    else:
        import gzip

        import nibabel

        volume, affine = heat[None], prepared.affine
        if prepared.stored_orientation:
            volume, affine = reorient(volume, affine, prepared.stored_orientation)
        image = nibabel.Nifti1Image(np.ascontiguousarray(volume[0]), affine)
        image.header.set_xyzt_units("mm")
        name, content = f"{stem}{MAP}.nii.gz", gzip.compress(image.to_bytes(), mtime=0)
    write_atomic(folder / name, lambda stream: stream.write(content))
    return name
