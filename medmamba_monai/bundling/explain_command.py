"""The command line verb ``explain``. Imported by medmamba_monai.cli when the verb is used."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmamba_monai.errors import ConfigError, DataError

if TYPE_CHECKING:
    from medmamba_monai.bundling.opened import TrainedBundle

__all__ = ["add_arguments", "run"]

_METHODS = ("scan", "gradcam", "gradcam++", "occlusion")  # of explain.METHODS, which is imported when it is needed
_UNREADABLE = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("source", type=Path, help="a trained bundle, or a folder with model.pt and model.json")
    parser.add_argument("images", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--bundle", type=Path, help="the bundle whose preprocessing goes with a folder of weights")
    parser.add_argument("--method", choices=_METHODS, default="scan", help="default: %(default)s")
    parser.add_argument("--target", metavar="CLASS", help="class to explain; default: the one predicted")
    parser.add_argument("--layer", help="stage 0 to 3 of a MedMamba, or a named layer of another network")
    parser.add_argument("--out", type=Path, default=Path("explanations"), help="folder to write; default: %(default)s")
    parser.add_argument("--device", help="cpu, cuda; default: the bundle's choice")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="settings", help="a key of the bundle, as in "
        "training: --set window=[40,400]"
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Explain each image, write index.json, say where everything lies, and return the exit code.

    A file that cannot be read does not keep the others from being explained; it is named, and the exit code is 3.
    """
    from medmamba_monai.bundling.explained import INDEX_NAME
    from medmamba_monai.bundling.opened import open_trained
    from medmamba_monai.handlers.files import require_writable, write_json

    settings = dict(_setting(text) for text in arguments.settings)
    trained = open_trained(arguments.source, arguments.bundle, arguments.device, settings)
    target = _class_number(arguments.target, trained.class_names)
    options = _options(arguments)
    files = _files(arguments.images, trained.info.spatial_dims)
    require_writable(arguments.out)
    items: list[dict[str, Any]] = []
    refused = 0
    for path, file in files.items():
        try:
            items.append(_explained(trained, path, file, target, arguments, options, items))
        except DataError as error:
            sys.stderr.write(f"{error}\n")
            refused += 1
        else:
            item = items[-1]
            sys.stdout.write(f"{file}: {item['target']} {item['probability']:.3f}, {arguments.out / item['overlay']}\n")
    if items:
        write_json(arguments.out / INDEX_NAME, {"method": arguments.method, **options, "items": items})
        sys.stdout.write(f"wrote {arguments.out / INDEX_NAME}\n")
    if refused:
        sys.stderr.write(f"{refused} of {len(files)} files could not be explained\n")
    return _UNREADABLE if refused else 0


def _setting(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ConfigError(f"'{text}' is no KEY=VALUE", where="--set")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _class_number(name: str | None, class_names: list[str]) -> int | None:
    if name is not None and name not in class_names:
        raise ConfigError(f"there is no class '{name}'", where="--target", remedy=f"use {', '.join(class_names)}")
    return None if name is None else class_names.index(name)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.layer is None:
        return {"routes": True} if arguments.method == "scan" else {}
    return {"layer": int(arguments.layer) if arguments.layer.isdigit() else arguments.layer}


def _files(given: list[Path], spatial_dims: int) -> dict[str, str]:
    """Path -> name to show, of all files below what was given, each once."""
    from medmamba_monai.data import list_images

    return {
        item["image"]: item["file"] for place in given for item in list_images(place, dicom_series=spatial_dims == 3)
    }


def _explained(
    trained: TrainedBundle,
    path: str,
    file: str,
    target: int | None,
    arguments: argparse.Namespace,
    options: dict[str, Any],
    before: list[dict[str, Any]],
) -> dict[str, Any]:
    """Explain one file, write its overlay and map, and return its item of index.json."""
    from medmamba_monai.bundling.explained import file_stem, in_file, names_of, route_shares, write_map, write_overlay
    from medmamba_monai.explain import explain

    prepared = trained.read(path)
    images = prepared.tensor[None].to(trained.device)
    found = explain(trained.network, images, arguments.method, target, trained.info.task, **options)
    maps = in_file(prepared, found)
    number, probabilities = int(found.targets[0]), found.probabilities[0].tolist()
    name, probability = trained.class_names[number], probabilities[number]
    stem = file_stem(file, [item["overlay"][:-4] for item in before])
    title = f"{file}\nfor {name}, probability {probability:.3f}"
    write_overlay(arguments.out / f"{stem}.png", prepared, maps, found, title)
    return {
        "file": file,
        "label": None,
        "prediction": names_of(_flags(probabilities, trained.info.task), trained.class_names),
        "target": name,
        "probability": probability,
        "overlay": f"{stem}.png",
        "map": write_map(arguments.out, stem, prepared, maps[0]),
        "why": "asked for",
        **route_shares(found),
    }


def _flags(probabilities: list[float], task: str) -> list[bool]:
    """Which classes are predicted: the likeliest, or of several all that are likelier than not."""
    return [value >= 0.5 if task == "multilabel" else value == max(probabilities) for value in probabilities]
