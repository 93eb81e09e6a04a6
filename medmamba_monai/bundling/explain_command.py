"""The command line verb ``explain``. Imported by medmamba_monai.cli when the verb is used."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmamba_monai.errors import CheckpointError, ConfigError, DataError, MedMambaError

if TYPE_CHECKING:
    from medmamba_monai.bundling.opened import TrainedBundle

__all__ = ["add_arguments", "run"]

_METHODS = ("scan", "gradcam", "gradcam++", "occlusion")  # of explain.METHODS, which is imported when it is needed
_UNREADABLE = 3
_OF_A_FILE = (DataError, OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError)
_NO_LOG_ODDS = (
    "contributions hold step sizes, gates and norms: they sum neither to the log-odds nor to a difference of them"
)
_AVERAGED = ("tta", "ensemble", "calibrated")  # keys that make a prediction of more than the network explained


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

    A file that cannot be explained does not keep the others from it; it is named, and the exit code is 3.

    Raises:
        ConfigError: an option that does not fit, which holds for every file.
        CheckpointError: the output cannot be written.
    """
    from medmamba_monai.bundling.explained import INDEX_NAME
    from medmamba_monai.bundling.opened import open_trained
    from medmamba_monai.handlers.files import require_writable, write_json

    settings = dict(_setting(text) for text in arguments.settings)
    _refuse_averages(settings)
    trained = open_trained(arguments.source, arguments.bundle, arguments.device, settings)
    target = _class_number(arguments.target, trained.class_names)
    options = _options(arguments)
    files = _files(arguments.images, arguments.out, trained.info.spatial_dims)
    require_writable(arguments.out)
    items: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    try:
        for path, file in files.items():
            try:
                items.append(_explained(trained, path, file, target, arguments, options, items))
            except (ConfigError, CheckpointError):  # of the options or the output folder: it holds for every file
                raise
            except _OF_A_FILE as error:
                known = isinstance(error, MedMambaError)
                refused[file] = str(error) if known else f"{file}: {type(error).__name__}: {error}"
                sys.stderr.write(f"{refused[file]}\n")
            else:
                overlay = arguments.out / items[-1]["overlay"]
                sys.stdout.write(f"{file}: {items[-1]['target']} {items[-1]['probability']:.3f}, {overlay}\n")
    finally:
        if items or refused:
            remark = {"remark": _NO_LOG_ODDS} if arguments.method == "scan" else {}
            told = {"method": arguments.method, **options, **remark, "items": items}
            write_json(arguments.out / INDEX_NAME, told | ({"refused": refused} if refused else {}))
            sys.stdout.write(f"wrote {arguments.out / INDEX_NAME}\n")
    if refused:
        sys.stderr.write(f"{len(refused)} of {len(files)} files could not be explained\n")
    return _UNREADABLE if refused else 0


def _refuse_averages(settings: dict[str, Any]) -> None:
    for key in _AVERAGED:
        if key in settings:
            raise ConfigError(
                "a map is of one network as it is, and of its own probability",
                where=f"--set {key}",
                remedy=f"leave {key} out; explain the networks of an ensemble one by one",
            )


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


def _files(given: list[Path], out: Path, spatial_dims: int) -> dict[str, str]:
    """Path -> name to show, of all files below what was given, each once; what lies below ``out`` is left out.

    Raises:
        ConfigError: images lie in ``out`` itself.
        DataError: there are no images.
    """
    from medmamba_monai.bundling.explained import MAP, OVERLAY
    from medmamba_monai.data import list_images

    written, found = out.resolve(), {}
    for place in given:
        whole = place.resolve()
        for item in list_images(place, dicom_series=spatial_dims == 3):
            path = Path(item["image"]).resolve()
            drawn = Path(path.name.removesuffix(".gz")).stem.endswith((OVERLAY, MAP))
            if written in (path, path.parent) and not drawn:
                raise ConfigError(
                    f"the images to explain lie there, such as {path.name}",
                    where=f"--out {out}",
                    remedy="name another folder for the explanations",
                )
            if written == whole or whole not in written.parents or written not in path.parents:
                found[item["image"]] = item["file"]
    if not found:
        raise DataError("holds nothing but explanations", where=str(out), remedy="give images")
    return found


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
    from medmamba_monai.bundling import explained as write
    from medmamba_monai.explain import explain

    prepared = trained.read(path)
    images = prepared.tensor[None].to(trained.device)
    found = explain(trained.network, images, arguments.method, target, trained.info.task, **options)
    maps = write.in_file(prepared, found)
    number, probabilities = int(found.targets[0]), found.probabilities[0].tolist()
    name, probability = trained.class_names[number], probabilities[number]
    stem = write.file_stem(file, [item["overlay"] for item in before])
    title = f"{file}\nfor {name}, probability {probability:.3f}"
    overlay = f"{stem}{write.OVERLAY}.png"
    write.write_overlay(arguments.out / overlay, prepared, maps, found, title)
    told = write.route_shares(found)
    if found.routes:
        told |= write.against_mean(trained.network, images, found, trained.info.task)
    return {
        "file": file,
        "label": None,
        "prediction": write.names_of(_flags(probabilities, trained.info.task), trained.class_names),
        "target": name,
        "probability": probability,
        "overlay": overlay,
        "map": write.write_map(arguments.out, stem, prepared, maps[0]),
        "why": "asked for",
        **told,
    }


def _flags(probabilities: list[float], task: str) -> list[bool]:
    """Which classes are predicted: the likeliest, or of several all that are likelier than not."""
    return [value >= 0.5 if task == "multilabel" else value == max(probabilities) for value in probabilities]
