"""Faithfulness of explanations on trained networks: deletion and insertion on the test parts of real labelled packs.

Networks are trained by the bundles, once, and kept in a folder; the test part is looked at by the measures alone.
Imports bundling, data, explain and the accuracy benchmark's way of running bundles.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..bundling.opened import TrainedBundle, open_trained
from ..data import Datalist
from ..explain import deletion_insertion, explain, rank_correlation, with_random_weights
from ..explain.baselines import centre_maps, contrast_maps, random_maps
from ..explain.passes import require_medmamba
from .accuracy import draw_parts, run_mode
from .machine import append_rows, describe, read_rows

__all__ = ["RECIPES", "Recipe", "add_arguments", "run"]


class Recipe(NamedTuple):
    """How one pack's network is trained; everything else is the bundle's default."""

    bundle: str
    image_size: int
    epochs: int
    exclude: tuple[str, ...] = ()


RECIPES = {
    "ultrasound": Recipe("breast_ultrasound_classification", 64, 20),
    "blood_cell": Recipe("blood_microscopy_classification", 64, 40, ("basophil",)),
}
METHODS = (("scan", None), *((method, stage) for method in ("gradcam", "gradcam++") for stage in range(4)))
BASELINES: dict[str, Callable[[Tensor], Tensor]] = {
    "random": partial(random_maps, seed=0),
    "centre": centre_maps,
    "contrast": contrast_maps,
}
_MOST = 40  # test images, evenly spaced, that keep a pack under some minutes on one core
_SLOWEST = 12  # images that occlusion, which takes hundreds of passes an image, is measured on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled packs, each with labels.csv")
    parser.add_argument("--packs", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--work", type=Path, default=Path("runs/explanations"), help="where trained networks are kept")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/explanations.csv"))


def run(arguments: argparse.Namespace) -> None:
    """Measure the packs that are missing in the table."""
    done = {row["pack"] for row in read_rows(arguments.out)}
    for pack in arguments.packs:
        if pack not in done:
            trained, datalist = _trained(pack, arguments)
            append_rows(arguments.out, _measured(pack, trained, datalist, arguments.data / pack))
    for row in read_rows(arguments.out):
        print(row["pack"], row["map"], row["deletion"], row["insertion"], row["score"])


def _trained(pack: str, arguments: argparse.Namespace) -> tuple[TrainedBundle, Datalist]:
    recipe, folder = RECIPES[pack], (arguments.data / pack).resolve()
    work, root = (arguments.work / pack).resolve(), (arguments.bundles / RECIPES[pack].bundle).resolve()
    listed = work / "datalist.json"
    if not listed.is_file():
        work.mkdir(parents=True, exist_ok=True)
        draw_parts(folder, recipe.exclude).save(listed)
    if not (work / "models" / "model.pt").is_file():
        options = {"dataset_dir": folder, "datalist": listed, "ckpt_dir": work / "models", "output_dir": work / "eval"}
        training = {"image_size": recipe.image_size, "epochs": recipe.epochs, "seed": 0}
        fixed = {"bundle_root": root, "mlflow": False, "num_workers": 0, "class_weights": True, "ema": True}
        run_mode(root, "train", {**options, **training, **fixed})
    return open_trained(work / "models", root), Datalist.load(listed)


def _measured(pack: str, trained: TrainedBundle, datalist: Datalist, folder: Path) -> list[dict[str, object]]:
    chosen = slice(None, None, max(1, len(datalist.test) // _MOST))
    files = [str(folder / record["image"]) for record in datalist.test[chosen]]
    images = torch.stack([trained.read(file).tensor for file in files]).to(trained.device)
    labels = torch.tensor(datalist.labels("test")[chosen])
    network = require_medmamba(trained.network, "this benchmark")
    with torch.no_grad():
        targets = network(images).argmax(1)
    accuracy = float((targets.cpu() == labels).float().mean())
    fresh = with_random_weights(network, 0)
    rows = [_row(pack, name, trained, images, make(images), targets, accuracy) for name, make in BASELINES.items()]
    for method, stage in METHODS:
        options: dict[str, Any] = {} if stage is None else {"layer": stage}
        maps = explain(network, images, method, targets, **options).maps
        together = rank_correlation(maps, explain(fresh, images, method, targets, **options).maps)
        name = method if stage is None else f"{method}, stage {stage}"
        rows.append(_row(pack, name, trained, images, maps, targets, accuracy, together))
    some = images[:_SLOWEST]
    maps = explain(network, some, "occlusion", targets[:_SLOWEST]).maps
    return [*rows, _row(pack, "occlusion", trained, some, maps, targets[:_SLOWEST], accuracy)]


def _row(
    pack: str,
    name: str,
    trained: TrainedBundle,
    images: Tensor,
    maps: Tensor,
    targets: Tensor,
    accuracy: float,
    together: Tensor | None = None,
) -> dict[str, object]:
    found = deletion_insertion(trained.network, images, maps, targets)
    return {
        "pack": pack,
        "map": name,
        "n": len(images),
        "accuracy": f"{accuracy:.3f}",
        "deletion": f"{float(found.deletion.mean()):.3f}",
        "insertion": f"{float(found.insertion.mean()):.3f}",
        "score": f"{float(found.score.mean()):.3f}",
        "standard_error": f"{float(found.score.std()) / len(images) ** 0.5:.3f}",
        "correlation_random_weights": "" if together is None else f"{float(together.nanmean()):.3f}",
        **describe(),
    }
