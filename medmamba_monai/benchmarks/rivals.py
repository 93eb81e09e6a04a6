"""Our network and MONAI's on the same packs, parts, epochs and number of tries, all trained from random weights.

Each network is trained by the same bundle, with another ``network_def``. The recipe is chosen for each network and
pack on the validation part with the first seed, from the same candidates for all; only the chosen one is trained with
further seeds and looks at the test part, once a run. Whatever is finished in the work folder is not run again, what
was interrupted goes on from its checkpoint. Imports data and the other benchmark modules; bundles run in processes of
their own.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..bundling.subprocesses import bundle_arguments, shown_command
from ..data import Datalist
from ..errors import MedMambaError
from ..metrics import PredictionTable
from . import linear
from .accuracy import BASELINE, RECIPES, draw_parts
from .machine import append_rows, describe, read_rows
from .rivals_summary import Contestant, markdown, rows

__all__ = ["CANDIDATES", "NETWORKS", "Budget", "add_arguments", "run"]

CANDIDATES: tuple[dict[str, Any], ...] = (
    {"learning_rate": 1e-3},
    {"learning_rate": 3e-4},
    {"learning_rate": 1e-3, "batch_size": 16},
)
"""Recipes that each network tries on the validation part; all else is the bundle's default and `FIXED`."""

FIXED: dict[str, Any] = {"class_weights": True, "ema": True, "mlflow": False, "num_workers": 0, "progress": False}

NETWORKS: dict[str, dict[str, Any]] = {
    "MedMamba nano": {},
    "DenseNet121": {
        "_target_": "monai.networks.nets.DenseNet121",
        "spatial_dims": 2,
        "in_channels": "@in_channels",
        "out_channels": "$len(@classes)",
    },
    "ResNet50": {  # the stem of the paper (stride 2); MONAI's default of 1 takes four times the work
        "_target_": "monai.networks.nets.resnet50",
        "spatial_dims": 2,
        "n_input_channels": "@in_channels",
        "num_classes": "$len(@classes)",
        "conv1_t_stride": 2,
    },
    "MedMamba tiny": {"preset": "tiny"},
}


BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of what a state dict holds besides parameters."""


class Budget(NamedTuple):
    """What every network gets."""

    image_size: int
    epochs: int
    candidates: int


class Job(NamedTuple):
    """A network on a pack."""

    pack: str
    network: str
    folder: Path
    work: Path
    bundle: Path
    budget: Budget
    seeds: Sequence[int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled packs, each with labels.csv")
    parser.add_argument("--packs", nargs="+", choices=list(RECIPES), default=["ultrasound", "endoscopy", "blood_cell"])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS)[:3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument(
        "--candidates", type=int, default=len(CANDIDATES), choices=range(1, len(CANDIDATES) + 1), help="recipes tried"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; the cores are shared out")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/rivals.csv"))
    parser.add_argument("--work", type=Path, default=Path("runs/rivals"), help="weights and predictions, kept to go on")


def run(arguments: argparse.Namespace) -> None:
    """Train and evaluate what is not done yet, then write the tables."""
    budget = Budget(arguments.image_size, arguments.epochs, arguments.candidates)
    jobs = [
        Job(
            pack,
            network,
            (arguments.data / pack).resolve(),
            (arguments.work / pack / network.replace(" ", "_")).resolve(),
            (arguments.bundles / RECIPES[pack].bundle).resolve(),
            budget,
            arguments.seeds,
        )
        for network in arguments.networks
        for pack in arguments.packs
    ]
    for pack in dict.fromkeys(job.pack for job in jobs):
        _datalist(arguments.data / pack, arguments.work / pack, RECIPES[pack].exclude)
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    torch.set_num_threads(threads)  # which the table tells, as that of the trainings
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(partial(_compete, threads=threads), jobs))
    entries = [entry for pack in arguments.packs for entry in _contestants(pack, jobs)]
    arguments.out.unlink(missing_ok=True)
    append_rows(arguments.out, [{**row, **describe()} for row in rows(entries, arguments.networks[0])])
    page = arguments.out.with_suffix(".md")
    page.write_text(_page(arguments, budget), encoding="utf-8")
    print(page.read_text(encoding="utf-8"))


def _page(arguments: argparse.Namespace, budget: Budget) -> str:
    table = read_rows(arguments.out)
    got = (
        f"Every network was trained by the same bundle from random weights for {budget.epochs} epochs of the same "
        f"parts, at {budget.image_size} x {budget.image_size} pixels, with class weights and a moving average of the "
        f"weights. {_tried(budget.candidates)}"
    )
    command = (
        f"python -m medmamba_monai.benchmarks rivals --data DIR --packs {' '.join(arguments.packs)} "
        f"--networks {shlex.join(arguments.networks)} --seeds "
        f"{' '.join(map(str, arguments.seeds))} --image_size {budget.image_size} --epochs {budget.epochs} "
        f"--candidates {budget.candidates} --jobs {arguments.jobs}"
    )
    return markdown(table, got, command, f"{table[-1]['cpu']}; {table[-1]['versions']}")


def _tried(candidates: int) -> str:
    if candidates == 1:
        return "All took the bundles' default recipe; none was tuned."
    tried = "; ".join(", ".join(f"{name} {value}" for name, value in each.items()) for each in CANDIDATES[:candidates])
    return (
        f"Each network on each pack took the best of {candidates} recipes on the validation part, tried with the first "
        f"seed ({tried}; all else as the bundles have it)."
    )


def _contestants(pack: str, jobs: Sequence[Job]) -> list[Contestant]:
    """What each network of a pack predicted for its test part, and the linear baseline."""
    entries = []
    for job in jobs:
        if job.pack != pack:
            continue
        chosen = json.loads((job.work / "chosen.json").read_text(encoding="utf-8"))["candidate"]
        folders = [_folder(job, chosen, seed) for seed in job.seeds]
        state = torch.load(folders[0] / "models" / "model.pt", weights_only=True)
        parameters = sum(v.numel() for name, v in state.items() if not name.endswith(BUFFERS))
        choice = ", ".join(f"{name} {value}" for name, value in CANDIDATES[chosen].items())
        spent = [json.loads((f / "trained.json").read_text(encoding="utf-8"))["cpu_seconds"] for f in folders]
        seconds = [each for each in spent if each is not None]
        tables = [PredictionTable.read(folder / "test" / "predictions.csv") for folder in folders]
        entries.append(Contestant(pack, job.network, tables, parameters, choice, seconds))
    return [*entries, _baseline(next(job for job in jobs if job.pack == pack))]


def _baseline(job: Job) -> Contestant:
    listed = Datalist.load(job.work.parent / "datalist.json")
    test = sorted(listed.test, key=lambda record: record["image"])
    parts = {"training": listed.training, "validation": listed.validation, "test": test}
    color = RECIPES[job.pack].color
    features = {n: linear.features([job.folder / r["image"] for r in part], color) for n, part in parts.items()}
    probabilities, strength = linear.fit_predict(
        (features["training"], listed.labels("training")),
        (features["validation"], listed.labels("validation")),
        features["test"],
    )
    groups = [str(record.get("group", record["image"])) for record in test]
    labels = np.array([record["label"] for record in test])
    table = PredictionTable(listed.class_names, [r["image"] for r in test], groups, labels, probabilities)
    return Contestant(job.pack, BASELINE, [table], 0, f"C {strength}", [])


def _datalist(folder: Path, work: Path, exclude: Sequence[str]) -> None:
    """Draw the parts once, without patients or copies of a picture in two of them."""
    if (work / "datalist.json").exists():
        return
    listed = draw_parts(folder.resolve(), exclude)
    work.mkdir(parents=True, exist_ok=True)
    listed.save(work / "datalist.json")


def _compete(job: Job, threads: int) -> None:
    """Choose the recipe on validation with the first seed, then train it with the others and test each once."""
    scores = []
    for number in range(job.budget.candidates if job.budget.candidates > 1 else 0):
        _train(job, number, job.seeds[0], threads)
        metrics = _evaluate(job, number, job.seeds[0], "validation", threads)
        scores.append(float(metrics["balanced_accuracy"]))
    best = scores.index(max(scores)) if scores else 0
    job.work.mkdir(parents=True, exist_ok=True)
    (job.work / "chosen.json").write_text(
        json.dumps({"candidate": best, "validation": scores}) + "\n", encoding="utf-8"
    )
    for seed in job.seeds:
        _train(job, best, seed, threads)
        _evaluate(job, best, seed, "test", threads)


def _folder(job: Job, candidate: int, seed: int) -> Path:
    return job.work / f"candidate{candidate}" / f"seed{seed}"


def _train(job: Job, candidate: int, seed: int, threads: int) -> None:
    folder = _folder(job, candidate, seed)
    recipe = {**CANDIDATES[candidate], **FIXED, **_network(job)}
    recipe |= {"seed": seed, "image_size": job.budget.image_size, "epochs": job.budget.epochs}
    _note_recipe(folder, recipe)
    done = folder / "trained.json"
    if done.exists():
        return
    options = {**_common(job, folder), **recipe}
    resumed = (folder / "models").exists()
    if resumed:
        options["resume"] = True
    seconds = _bundle(job.bundle, "train", options, folder / "train.log", threads)
    known = None if resumed else round(seconds, 1)  # of a resumed run, the part before is not known
    done.write_text(json.dumps({"cpu_seconds": known}) + "\n", encoding="utf-8")


def _note_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Note what a run gets; refuse to go on with one that got something else."""
    noted = folder / "recipe.json"
    if not folder.exists():
        folder.mkdir(parents=True)
        noted.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    earlier = json.loads(noted.read_text(encoding="utf-8")) if noted.exists() else {}
    changed = [
        f"{key} was {earlier.get(key)} and is {value}" for key, value in recipe.items() if earlier.get(key) != value
    ]
    if changed:
        raise MedMambaError(
            f"this run was made otherwise: {'; '.join(changed)}",
            where=str(folder),
            remedy="choose another --work, or remove that folder",
        )


def _evaluate(job: Job, candidate: int, seed: int, part: str, threads: int) -> dict[str, Any]:
    folder = _folder(job, candidate, seed)
    output = folder / part
    if not (output / "metrics.json").exists():
        options = {**_common(job, folder), "output_dir": output, "split": part, **_network(job)}
        options |= {"mlflow": False, "num_workers": 0}
        options.pop("preset", None)  # the weights know it
        _bundle(job.bundle, "evaluate", options, folder / f"{part}.log", threads)
    metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _common(job: Job, folder: Path) -> dict[str, Any]:
    return {
        "dataset_dir": job.folder,
        "datalist": job.work.parent / "datalist.json",
        "ckpt_dir": folder / "models",
        "output_dir": folder / "eval",
    }


def _network(job: Job) -> dict[str, Any]:
    definition = NETWORKS[job.network]
    return {"network_def": definition} if "_target_" in definition else dict(definition)


def _bundle(root: Path, mode: str, options: dict[str, Any], log: Path, threads: int) -> float:
    """Run a bundle with its output in a file; return the seconds of processor time."""
    arguments = bundle_arguments(root, mode, options)
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", *arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = log.read_text(encoding="utf-8")[-3000:]
        raise MedMambaError(f"a bundle run failed: {shown_command(arguments)}\n{end}", where=str(log))
    return usage.ru_utime + usage.ru_stime
