"""Bundle-trained networks against the linear baseline on real labelled packs, the same grouped split for both.

The test part is drawn once, by groups and without copies of what is trained on, and looked at once, at the end of each
run; sizes and epochs below were chosen on the validation part alone. Runs already in the table are left out, so an
interrupted benchmark goes on. Imports data and the other benchmark modules; the bundles run in processes of their own.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..bundling.subprocesses import bundle_arguments, run_bundle, shown_command
from ..data import Datalist, build_datalist, find_duplicates
from ..errors import DataError, MedMambaError
from ..metrics import classification_report
from . import linear
from .machine import append_rows, describe, read_rows

__all__ = ["RECIPES", "Recipe", "add_arguments", "draw_parts", "run", "run_mode"]

RESAMPLES = 2000
FRACTIONS = (0.55, 0.2, 0.25)
NETWORK, BASELINE = "MedMamba nano, bundle", "logistic regression, thumbnail + HOG"


class Recipe(NamedTuple):
    """How one pack is trained; everything else is the bundle's default."""

    bundle: str
    color: str
    image_size: int
    epochs: int
    exclude: tuple[str, ...] = ()


RECIPES = {
    "ultrasound": Recipe("breast_ultrasound_classification", "grey", 96, 50),
    "chest_xray": Recipe("chest_xray_classification", "grey", 96, 50),
    "blood_cell": Recipe("blood_microscopy_classification", "rgb", 64, 80, ("basophil",)),
    "endoscopy": Recipe("blood_microscopy_classification", "rgb", 96, 50),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled packs, each with labels.csv")
    parser.add_argument("--packs", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/accuracy.csv"))


def run(arguments: argparse.Namespace) -> None:
    """Measure what is missing in the table and write the summary beside it."""
    done = {(row["pack"], row["model"], row["seed"]) for row in read_rows(arguments.out)}
    for pack in arguments.packs:
        folder = (arguments.data / pack).resolve()
        datalist = draw_parts(folder, RECIPES[pack].exclude)
        if (pack, BASELINE, "0") not in done:
            append_rows(arguments.out, [_baseline(pack, folder, datalist)])
        for seed in arguments.seeds:
            if (pack, NETWORK, str(seed)) not in done:
                append_rows(arguments.out, [_network(pack, folder, datalist, seed, arguments.bundles.resolve())])
    summary = arguments.out.with_suffix(".md")
    summary.write_text(_summary(read_rows(arguments.out)), encoding="utf-8")
    print(summary.read_text(encoding="utf-8"))


def draw_parts(folder: Path, exclude: Sequence[str] = ()) -> Datalist:
    """Deal the images of a pack into the parts that all benchmarks share, without copies in two of them.

    Args:
        folder: of the pack, with labels.csv.
        exclude: classes left out.
    """
    copies = partial(find_duplicates, folder)
    return build_datalist(folder, seed=0, fractions=FRACTIONS, exclude_classes=list(exclude), find_copies=copies)


def _row(
    pack: str, model: str, seed: int, datalist: Datalist, probabilities: np.ndarray, seconds: float, detail: str
) -> dict[str, object]:
    labels = datalist.labels("test")
    groups = [str(record.get("group", record["image"])) for record in datalist.test]
    predictions = probabilities.argmax(1).tolist()
    report = classification_report(labels, probabilities, datalist.class_names, clusters=groups, resamples=RESAMPLES)
    bounds = report["intervals"]["balanced_accuracy"] or ("", "")
    sizes = "/".join(str(len(part)) for part in (datalist.training, datalist.validation, datalist.test))
    return {
        "pack": pack,
        "model": model,
        "seed": seed,
        "train/val/test": sizes,
        "classes": len(datalist.class_names),
        "balanced_accuracy": f"{report['balanced_accuracy']:.4f}",
        "low95": _digits(bounds[0]),
        "high95": _digits(bounds[1]),
        "auc": f"{report['auc']:.4f}",
        "seconds": f"{seconds:.0f}",
        "detail": detail,
        "correct": "".join(str(int(a == b)) for a, b in zip(labels, predictions, strict=True)),
        **describe(),
    }


def _digits(bound: float | str) -> str:
    """Four digits, or nothing where there is no interval."""
    return bound if isinstance(bound, str) else f"{bound:.4f}"


def _baseline(pack: str, folder: Path, datalist: Datalist) -> dict[str, object]:
    began = time.perf_counter()
    parts = {
        part: linear.features([folder / r["image"] for r in getattr(datalist, part)], RECIPES[pack].color)
        for part in ("training", "validation", "test")
    }
    probabilities, strength = linear.fit_predict(
        (parts["training"], datalist.labels("training")),
        (parts["validation"], datalist.labels("validation")),
        parts["test"],
    )
    return _row(pack, BASELINE, 0, datalist, probabilities, time.perf_counter() - began, f"C={strength}")


def _network(pack: str, folder: Path, datalist: Datalist, seed: int, bundles: Path) -> dict[str, object]:
    recipe = RECIPES[pack]
    root = bundles / recipe.bundle
    with tempfile.TemporaryDirectory() as work:
        listed = Path(work) / "datalist.json"
        datalist.save(listed)
        common = {
            "dataset_dir": folder,
            "datalist": listed,
            "ckpt_dir": Path(work) / "models",
            "output_dir": Path(work) / "eval",
            "mlflow": False,
            "num_workers": 0,
        }
        training: dict[str, object] = {"seed": seed, "image_size": recipe.image_size, "epochs": recipe.epochs}
        training |= {"class_weights": True, "ema": True}
        began = time.perf_counter()
        run_mode(root, "train", {**common, **training})
        seconds = time.perf_counter() - began
        run_mode(root, "evaluate", common)
        probabilities = _probabilities(Path(work) / "eval" / "predictions.csv", datalist)
    options = shlex.join(part for name, value in training.items() for part in (f"--{name}", str(value)))
    return _row(pack, NETWORK, seed, datalist, probabilities, seconds, f"{recipe.bundle} {options}")


def run_mode(root: Path, mode: str, options: dict[str, object]) -> None:
    """Run a bundle in a process of its own, its log beside the output folder.

    Args:
        root: the bundle's folder.
        mode: "train" or "evaluate".
        options: keys to override; ``output_dir`` among them.

    Raises:
        MedMambaError: it failed, with the end of what it said.
    """
    arguments = bundle_arguments(root, mode, options)
    log = Path(str(options["output_dir"])).with_name(f"{mode}.log")
    if run_bundle(arguments, log):
        text = log.read_text(encoding="utf-8", errors="replace")
        raise MedMambaError(f"a bundle run failed:\n{text[-4000:]}", where=shown_command(arguments))


def _probabilities(path: Path, datalist: Datalist) -> np.ndarray:
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: [float(row[name]) for name in datalist.class_names] for row in csv.DictReader(file)}
    missing = [record["image"] for record in datalist.test if record["image"] not in rows]
    if missing:
        raise DataError(f"no prediction for {missing[:3]}", where=str(path))
    return np.array([rows[record["image"]] for record in datalist.test])


def _brackets(row: dict[str, str]) -> str:
    return f"[{float(row['low95']):.2f}, {float(row['high95']):.2f}]" if row["low95"] else "[no interval]"


def _summary(rows: list[dict[str, str]]) -> str:
    """Write a line for each pack: mean and spread over seeds, the widest interval, and whether the network leads."""
    packs, seeds = (
        " ".join(dict.fromkeys(row[key] for row in rows if row["model"] == NETWORK)) for key in ("pack", "seed")
    )
    command = f"python -m medmamba_monai.benchmarks accuracy --data DIR --packs {packs} --seeds {seeds}"
    lines = [
        "# Accuracy on small real packs",
        "",
        "Balanced accuracy on a test part drawn once, by patient, lesion or frame where known, and looked at once. "
        "Image size and epochs were chosen on the validation part. Network: mean ± standard deviation over the seeds; "
        "brackets: 95 % bootstrap interval over groups (of the middle seed). No pretrained weights.",
        "",
        f"| pack | train/val/test | classes | {NETWORK} | {BASELINE} | seconds a run |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for pack in dict.fromkeys(row["pack"] for row in rows):
        ours = sorted(
            (row for row in rows if row["pack"] == pack and row["model"] == NETWORK),
            key=lambda row: float(row["balanced_accuracy"]),
        )
        theirs = [row for row in rows if row["pack"] == pack and row["model"] == BASELINE]
        if not ours or not theirs:
            continue
        values = [float(row["balanced_accuracy"]) for row in ours]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        middle, base = ours[len(ours) // 2], theirs[0]
        seconds = statistics.mean(float(row["seconds"]) for row in ours)
        lines.append(
            f"| {pack} | {base['train/val/test']} | {base['classes']} "
            f"| {statistics.mean(values):.3f} ± {spread:.3f} {_brackets(middle)} "
            f"| {float(base['balanced_accuracy']):.3f} {_brackets(base)} "
            f"| {seconds:.0f} |"
        )
    lines += ["", f"Command: `{command}`. Machine: {rows[-1]['cpu']}; {rows[-1]['versions']}." if rows else "", ""]
    return "\n".join(lines)
