"""What the Model Zoo's continuous integration asks of a bundle, one function a check, and the table of them.

A check returns what it found in a few words, and raises whatever comes up where something is wrong.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from medmamba_monai.bundling import vendor
from medmamba_monai.bundling.merge import read_json
from medmamba_monai.bundling.privacy import refuse_personal_paths
from medmamba_monai.bundling.release import LARGE, LOCK, check_version, lock_differences
from medmamba_monai.bundling.source import METADATA, release_files
from medmamba_monai.bundling.trained import MODEL, check_weights
from medmamba_monai.bundling.trial import MODES, Trial
from medmamba_monai.errors import ConfigError

__all__ = ["CHECKS", "GENERATED", "Check"]

GENERATED = "GENERATED for this check: random, the bundle has no trained weights"

NECESSARY = (
    *("LICENSE", METADATA, "configs/train.json", "configs/evaluate.json", "configs/inference.json"),
    *("configs/logging.conf", "docs/README.md", "docs/data_license.txt"),
)


class Check(NamedTuple):
    """A check by name.

    Attributes:
        name: as the table shows it.
        run: the check itself; gets the copy of the bundle and the folder of the metadata schemas.
        needs: checks that have to be passed first.
    """

    name: str
    run: Callable[[Trial, Path], str]
    needs: tuple[str, ...] = ()


def files(trial: Trial, schemas: Path) -> str:
    """Look for the files the zoo needs, and for large ones that are not listed."""
    missing = [file for file in NECESSARY if not (trial.folder / file).is_file()]
    if missing:
        raise ConfigError(f"missing: {', '.join(missing)}")
    if trial.metadata.get("name") != trial.folder.name:
        raise ConfigError(f"metadata.json calls it {trial.metadata.get('name')!r}, its folder {trial.folder.name!r}")
    listed = _large_files(trial.folder)
    found = release_files(trial.folder)
    present = [file for file in [*found, MODEL] if (trial.folder / file).is_file()]
    large = [file for file in present if (trial.folder / file).stat().st_size > LARGE and file not in listed]
    # weights of a training in place are listed when they are packed
    if large and (trial.folder / LOCK).is_file():
        raise ConfigError(f"over 25 MB and not in large_files.yml: {', '.join(large)}")
    if (trial.folder / LOCK).is_file():
        _none(lock_differences(trial.folder))
        return f"{len(found)} files as locked"
    return f"{len(found)} files"


def _large_files(folder: Path) -> list[str]:
    """Paths that large_files.yml lists; a listed file that is in place has to have its digest."""
    file = folder / "large_files.yml"
    if not file.is_file():
        return []
    from monai.apps.utils import check_hash
    from monai.bundle import ConfigParser

    listed = ConfigParser.load_config_file(str(file))["large_files"]
    for entry in listed:
        there = folder / entry["path"]
        if there.is_file() and not check_hash(there, entry.get("hash_val") or None, entry.get("hash_type") or "md5"):
            raise ConfigError(f"{entry['path']} has not the {entry['hash_type']} of large_files.yml")
    return [entry["path"] for entry in listed]


def paths(trial: Trial, schemas: Path) -> str:
    """Look for paths of somebody's own machine."""
    ours = [file for file in release_files(trial.folder) if not file.startswith(f"{vendor.NAME}/")]
    refuse_personal_paths(trial.folder, ours)
    return "none of one machine"


def changelog(trial: Trial, schemas: Path) -> str:
    """Look for the version in the changelog; in a clone of the zoo also whether it has been used."""
    version = check_version(trial.metadata, "metadata.json")
    used = trial.origin.parent / "model_info.json"
    if used.is_file() and f"{trial.folder.name}_v{version}" in read_json(used):
        raise ConfigError(f"version {version} has been released", where=str(used), remedy="give the bundle a new one")
    return f"version {version}"


def schema(trial: Trial, schemas: Path) -> str:
    """Validate the metadata against the schema they name, without downloading it."""
    from monai.bundle import verify_metadata

    name = str(trial.metadata.get("schema", "")).rpartition("/")[2]
    if not name or not (schemas / name).is_file():
        raise ConfigError(f"there is no copy of the schema {name!r}", where=str(schemas))
    (trial.folder / "eval").mkdir(exist_ok=True)
    copy = shutil.copy(schemas / name, trial.folder / "eval" / "schema.json")
    verify_metadata(meta_file=str(trial.folder / METADATA), filepath=copy)
    return name


def vendored(trial: Trial, schemas: Path) -> str:
    """Compare a copy of this package that the bundle carries with the package itself."""
    if not (trial.folder / vendor.NAME).is_dir():
        return f"uses {vendor.NAME} {trial.metadata['required_packages_version'].get(vendor.NAME, '(no version)')}"
    _none(vendor.differences(trial.folder))
    return "carries what it needs, unchanged"


def weights(trial: Trial, schemas: Path) -> str:
    """Prove that the weights fit network, preprocessing and description; random ones are made where none are."""
    made = trial.make_weights()
    check_weights(trial.folder)
    return GENERATED if made else "trained"


def network(trial: Trial, schemas: Path) -> str:
    """Run the network on one random image of the metadata's format."""
    from monai.bundle import verify_net_in_out

    verify_net_in_out("network_def", device="cpu", **_arguments(trial))
    tensors = trial.metadata["network_data_format"]
    image, scores = tensors["inputs"]["image"], tensors["outputs"]["pred"]
    shape = "x".join(map(str, (image["num_channels"], *image["spatial_shape"])))
    return f"{shape} -> {scores['num_channels']}"


def torchscript(trial: Trial, schemas: Path) -> str:
    """Export the weights to TorchScript by scripting and load the result."""
    import torch
    from monai.bundle import ckpt_export

    target = trial.folder / "models" / "verify_model.ts"
    ckpt_export("network_def", filepath=str(target), ckpt_file=str(trial.folder / MODEL), **_arguments(trial))
    torch.jit.load(str(target))
    delivered = trial.folder / "models" / "model.ts"
    if delivered.is_file():
        torch.jit.load(str(delivered))
        return "scripted; model.ts loads"
    return "scripted"


def properties(trial: Trial, schemas: Path, mode: str) -> str:
    """Initialise a workflow and look for the properties MONAI requires of it."""
    workflow = trial.workflow(mode)
    workflow.initialize()
    missing = workflow.check_properties()
    if missing:
        raise ConfigError(f"missing or not as they should be: {', '.join(missing)}")
    return "all there"


def _arguments(trial: Trial) -> dict[str, str]:
    (config,) = trial.files("inference")
    return {"meta_file": str(trial.folder / METADATA), "config_file": config, "bundle_root": str(trial.folder)}


def _none(faults: list[str]) -> None:
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ConfigError(f"{'; '.join(faults[:3])}{more}", remedy="pack the bundle again")


CHECKS = (
    Check("files", files),
    Check("paths", paths, ("files",)),
    Check("changelog", changelog, ("files",)),
    Check("schema", schema, ("files",)),
    Check("vendored", vendored, ("files",)),
    Check("weights", weights, ("files",)),
    Check("network", network, ("weights",)),
    Check("torchscript", torchscript, ("weights",)),
    *(Check(f"properties of {mode}", partial(properties, mode=mode), ("weights",)) for mode in MODES),
)
"""Every check in the order it is made."""
