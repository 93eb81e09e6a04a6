"""The verb ``demo``: train, evaluate and predict with a bundle, as a user would type it, and say where everything lies.

Without a data set it draws phantoms first. Everything runs through ``python -m monai.bundle run``, and every command is
printed, so that what works here works again by hand. Imported by medmamba_monai.cli when the verb is used.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path

from .bundling.subprocesses import bundle_arguments, run_bundle, shown_command
from .data.phantom import write_phantoms
from .errors import ConfigError, MedMambaError

__all__ = ["DemoError", "add_arguments", "run"]

_FILMS, _NEW_FILMS = 240, 6  # of each class: for training, validation and test; for prediction
_METRICS = ("accuracy", "balanced_accuracy", "auc", "sensitivity", "specificity")


class DemoError(MedMambaError):
    """A command of the demonstration failed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--dataset_dir", type=Path, help="your images, a folder for each class; default: phantoms are drawn"
    )
    parser.add_argument(
        "--bundle", default="chest_xray_classification", help="a folder of bundles/ (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="where everything is written (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--image_size", type=int, default=64, help="side in pixels (default: %(default)s)")
    parser.add_argument("--bundles_dir", type=Path, default=Path("bundles"), help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Carry the demonstration out and print a table of results and places."""
    bundle = (arguments.bundles_dir / arguments.bundle).resolve()
    if not (bundle / "configs" / "train.json").is_file():
        raise ConfigError(f"there is no bundle {bundle}", remedy="run this from the repository's folder")
    out = arguments.out.resolve()
    began = time.monotonic()
    dataset, new = _images(arguments.dataset_dir, out)
    work = out / f"{dataset.name}_run"
    common = {
        "dataset_dir": dataset,
        "ckpt_dir": work / "models",
        "output_dir": work / "eval",
        "mlflow": True,
    }
    training = {
        "epochs": arguments.epochs,
        "image_size": arguments.image_size,
        "learning_rate": 0.002,
        "num_workers": 0,
    }
    _bundle_run("Train", bundle, "train", {**common, **training})
    _bundle_run("Evaluate on the test part", bundle, "evaluate", common)
    predictions = work / "predictions"
    _bundle_run("Predict new images", bundle, "inference", {**common, "dataset_dir": new, "output_dir": predictions})
    _report(work, predictions, time.monotonic() - began)
    return 0


def _images(dataset: Path | None, out: Path) -> tuple[Path, Path]:
    """Return the folder to train on and the folder to predict."""
    if dataset is not None:
        return dataset.resolve(), dataset.resolve()
    folder, new = out / "phantoms", out / "new_phantoms"
    _say(f"Drawing synthetic films into {_short(folder)} (no patient was ever behind them)")
    write_phantoms(folder, _FILMS)
    write_phantoms(new, _NEW_FILMS, seed=_FILMS)
    return folder, new


def _bundle_run(title: str, bundle: Path, mode: str, options: dict[str, object]) -> None:
    arguments = bundle_arguments(bundle, mode, options)
    _say(f"{title}:\n  {shown_command(arguments)}")
    if run_bundle(arguments):
        raise DemoError(f"the step {title!r} failed; its message is above")


def _report(work: Path, predictions: Path, seconds: float) -> None:
    metrics = json.loads((work / "eval" / "metrics.json").read_text(encoding="utf-8"))
    with (predictions / "predictions.csv").open(newline="", encoding="utf-8") as file:
        predicted = list(csv.DictReader(file))
    database = work / "eval" / "mlruns.db"
    rows = [(f"test {name.replace('_', ' ')}", _number(metrics.get(name))) for name in _METRICS]
    rows += [
        ("test images", str(metrics["n"])),
        ("images predicted", str(len(predicted))),
        ("time", f"{seconds:.0f} s"),
        ("weights", _short(work / "models" / "model.pt")),
        ("predictions", _short(predictions / "predictions.csv")),
        ("MLflow database", _short(database)),
        (
            "look at it with",
            f"{_short(Path(sys.executable).parent / 'mlflow')} ui --backend-store-uri sqlite:///{database}",
        ),
    ]
    width = max(len(name) for name, _ in rows)
    _say("\n".join(f"{name:<{width}}  {value}" for name, value in rows))


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float | int) else "undefined"


def _short(path: Path) -> str:
    """Write a path relative to the current folder where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _say(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()
