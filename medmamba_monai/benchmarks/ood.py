"""Telling unusual images by several scores: networks trained on one real pack look at its test part and at other packs.

Networks are trained by the bundles, once, and kept in a folder. The distance is the one that training stored in
calibration.json and that evaluation uses. Imports bundling, data, metrics, networks and the accuracy benchmark's way
of running bundles.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..bundling.calibration import stored_calibration
from ..bundling.opened import TrainedBundle, open_trained
from ..data import Datalist
from ..errors import CheckpointError, DataError
from ..metrics.out_of_distribution import detection_auroc, energy
from ..networks.features import FeatureTap
from .accuracy import draw_parts, run_mode
from .machine import append_rows, describe, read_rows

__all__ = ["RECIPES", "SCORES", "Looks", "Recipe", "add_arguments", "distance_to_neighbour", "run", "table"]

Values = npt.NDArray[np.float64]


class Recipe(NamedTuple):
    """How one pack's network is trained; everything else is the bundle's default."""

    bundle: str
    image_size: int
    epochs: int
    exclude: tuple[str, ...] = ()


class Looks(NamedTuple):
    """What a network makes of some images: logits (N, C) and pooled features (N, D)."""

    logits: Values
    features: Values


RECIPES = {
    "blood_cell": Recipe("blood_microscopy_classification", 64, 15, ("basophil",)),
    "ultrasound": Recipe("breast_ultrasound_classification", 64, 8),
    "endoscopy": Recipe("blood_microscopy_classification", 64, 8),
}
SCORES = {
    "mahalanobis": "distance (what is used)",
    "energy": "energy",
    "max_softmax": "largest probability",
    "knn": "10th nearest neighbour",
}
"""Score → how docs/calibration.md calls it."""

_MOST = 80  # images of every other pack, evenly spaced, that keep all three packs under some minutes on one core
_LEAST = 20  # images below which an AUROC says little
_NEIGHBOUR = 10
_BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled packs, each with labels.csv")
    parser.add_argument("--packs", nargs="+", choices=list(RECIPES), default=list(RECIPES), help="to train on")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--work", type=Path, default=Path("runs/ood"), help="where trained networks are kept")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/ood.csv"))


def run(arguments: argparse.Namespace) -> None:
    """Measure the packs that are missing in the table, and print its means."""
    done = {row["trained_on"] for row in read_rows(arguments.out)}
    for pack in arguments.packs:
        if pack not in done:
            trained, datalist, ckpt_dir = _trained(pack, arguments)
            append_rows(arguments.out, _measured(pack, trained, datalist, ckpt_dir, arguments.data))
    print("\n".join(table(read_rows(arguments.out))))


def table(rows: Sequence[dict[str, str]]) -> list[str]:
    """Lines of Markdown: for each pack trained on and each score, the mean AUROC and its range over the other packs.

    Args:
        rows: of ood.csv.
    """
    lines = [f"| {' | '.join(['trained on', *SCORES.values()])} |", f"|{' --- |' * (1 + len(SCORES))}"]
    for pack in dict.fromkeys(row["trained_on"] for row in rows):
        cells = [pack.replace("_", " ")]
        for score in SCORES:
            found = [float(r["auroc"]) for r in rows if (r["trained_on"], r["score"]) == (pack, score)]
            cells.append(f"{statistics.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def distance_to_neighbour(reference: Values, features: Values, neighbour: int = _NEIGHBOUR) -> Values:
    """Distance (N,) to the k-th nearest reference image, all features of length 1 (Y. Sun et al., ICML 2022).

    Args:
        reference: (M, D) features.
        features: (N, D).
        neighbour: k; the farthest where there are fewer references.

    Example:
        >>> distance_to_neighbour(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0]]), 1).tolist()
        [0.0]
    """
    from sklearn.neighbors import NearestNeighbors

    known, asked = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (reference, features))
    found = NearestNeighbors(n_neighbors=min(neighbour, len(known)), algorithm="brute").fit(known)
    return np.asarray(found.kneighbors(asked)[0][:, -1])


def _trained(pack: str, arguments: argparse.Namespace) -> tuple[TrainedBundle, Datalist, Path]:
    recipe, folder = RECIPES[pack], (arguments.data / pack).resolve()
    work, root = (arguments.work / pack).resolve(), (arguments.bundles / recipe.bundle).resolve()
    listed, ckpt_dir = work / "datalist.json", work / "models"
    if not listed.is_file():
        work.mkdir(parents=True, exist_ok=True)
        draw_parts(folder, recipe.exclude).save(listed)
    if not (ckpt_dir / "calibration.json").is_file():  # the last thing that training writes
        places = {"dataset_dir": folder, "datalist": listed, "ckpt_dir": ckpt_dir, "output_dir": work / "eval"}
        training = {"image_size": recipe.image_size, "epochs": recipe.epochs, "seed": 0}
        run_mode(root, "train", {**places, **training, "mlflow": False, "num_workers": 0})
    return open_trained(ckpt_dir, root), Datalist.load(listed), ckpt_dir


def _measured(
    pack: str, trained: TrainedBundle, datalist: Datalist, ckpt_dir: Path, data: Path
) -> list[dict[str, object]]:
    scores = _scores(trained, datalist, ckpt_dir, data / pack)
    own = _look(trained, [data / pack / record["image"] for record in datalist.test])
    usual = {name: score(own) for name, score in scores.items()}
    rows: list[dict[str, object]] = []
    for other, files in _others(data, pack).items():
        looks = _look(trained, files)
        rows += [
            {
                "trained_on": pack,
                "other": other,
                "score": name,
                "auroc": f"{detection_auroc(usual[name], score(looks)):.4f}",
                "n_in": len(own.logits),
                "n_out": len(files),
                "epochs": RECIPES[pack].epochs,
                **describe(),
            }
            for name, score in scores.items()
        ]
    return rows


def _scores(
    trained: TrainedBundle, datalist: Datalist, ckpt_dir: Path, folder: Path
) -> dict[str, Callable[[Looks], Values]]:
    """Every score as a function that is larger for unusual images."""
    unusual = stored_calibration(str(ckpt_dir), trained.class_names, required=True).unusual
    if unusual is None or unusual.method(True) != "mahalanobis":
        raise CheckpointError("it holds no distance", where=str(ckpt_dir / "calibration.json"))
    reference = _look(trained, [folder / record["image"] for record in datalist.validation]).features
    return {
        "mahalanobis": lambda looks: unusual.score(looks.logits, looks.features),
        "energy": lambda looks: energy(looks.logits),
        "max_softmax": lambda looks: -_probabilities(looks.logits).max(axis=1),
        "knn": lambda looks: distance_to_neighbour(reference, looks.features),
    }


def _probabilities(logits: Values) -> Values:
    from scipy.special import softmax

    return np.asarray(softmax(logits, axis=1))


def _others(data: Path, pack: str) -> dict[str, list[Path]]:
    """Images of the other packs: those with a labels.csv that names enough of them."""
    found = {}
    for listed in sorted(data.glob("*/labels.csv")):
        with listed.open(newline="", encoding="utf-8") as file:
            files = [listed.parent / row["file"] for row in csv.DictReader(file)]
        if listed.parent.name != pack and len(files) >= _LEAST:
            count = min(_MOST, len(files))
            found[listed.parent.name] = [files[number * len(files) // count] for number in range(count)]
    if not found:
        raise DataError("there is no other pack", where=str(data), remedy="give a folder of several labelled packs")
    return found


def _look(trained: TrainedBundle, files: Sequence[Path]) -> Looks:
    images = [trained.read(str(file)).tensor for file in files]
    tap = FeatureTap(trained.network)
    logits, features = [], []
    try:
        for start in range(0, len(images), _BATCH):
            with torch.no_grad():
                trained.network(torch.stack(images[start : start + _BATCH]).to(trained.device))
            seen = tap.take()
            if seen[0] is None or seen[1] is None:
                raise DataError("the network shows no features", where="ood benchmark")
            logits.append(seen[0].cpu())
            features.append(seen[1].cpu())
    finally:
        tap.close()
    return Looks(torch.cat(logits).double().numpy(), torch.cat(features).double().numpy())
