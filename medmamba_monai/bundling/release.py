"""Assembles a bundle as it is released: its own files, and on request weights, their scores and the package.

`bundle pack` zips the result, `bundle publish` uploads it.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import medmamba_monai
from medmamba_monai.bundling import source, vendor
from medmamba_monai.bundling.card import WHERE_TO_RUN, rewrite_card
from medmamba_monai.bundling.layout import json_text
from medmamba_monai.bundling.merge import read_json
from medmamba_monai.bundling.privacy import refuse_personal_paths
from medmamba_monai.bundling.source import METADATA
from medmamba_monai.errors import ConfigError

__all__ = ["LARGE", "LOCK", "Release", "assemble", "check_version", "lock_differences"]

LOCK = "lock.json"
LARGE = 25 * 1024 * 1024
"""Bytes above which the zoo wants a file listed in large_files.yml."""

HERE = (
    "This folder carries the part of medmamba_monai that it needs. Where the package is not installed, run from "
    "inside the folder, with `.` in place of `BUNDLE`:"
)


@dataclass(frozen=True)
class Release:
    """What a release holds beside the bundle's own files.

    Attributes:
        weights: model.pt of a training, with model.json beside it; None: a release without weights.
        metrics: metrics.json of their evaluation; None: beside them, or where an evaluation in the same bundle puts it.
        data_source: what they were trained on, where that is not the data the metadata name.
        data_license: a text file with the conditions of that data.
        weights_url: where the weights will be downloaded from, if they are too large for the zoo's repository.
        vendor: carry the needed part of this package.
        version: the release's number; None: the metadata's.
        change: what is new in it; goes with ``version``.
    """

    weights: Path | None = None
    metrics: Path | None = None
    data_source: str | None = None
    data_license: Path | None = None
    weights_url: str = ""
    vendor: bool = False
    version: str | None = None
    change: str | None = None


def assemble(folder: Path, target: Path, release: Release) -> dict[str, str]:
    """Put a release together.

    Args:
        folder: the bundle.
        target: an empty folder of the bundle's name.
        release: what it holds.

    Returns:
        SHA-256 of every file by path, sorted; the lock file, which lists them, is not among them.

    Raises:
        ConfigError: an option is missing or does not fit, or the files name paths of one machine.
        CheckpointError: the weights cannot be released.
    """
    _refuse_half_given(release)
    for necessary in ("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/inference.json", METADATA):
        if not (folder / necessary).is_file():
            raise ConfigError(f"{necessary} is missing", where=str(folder), remedy="restore it from configs/")
    stated = read_json(folder / METADATA).get("name")
    if stated != folder.name:
        raise ConfigError(f"its name is {stated!r}, its folder's {folder.name!r}", where=str(folder / METADATA))
    source.copy_release(folder, target)
    if release.version is not None:
        metadata = read_json(target / METADATA)
        metadata["changelog"] = {release.version: release.change, **metadata.get("changelog", {})}
        metadata["version"] = release.version
        (target / METADATA).write_text(json_text(metadata), encoding="utf-8")
    check_version(read_json(target / METADATA), str(folder / METADATA))
    if release.weights is not None:
        _add_weights(target, release, release.weights)
    if release.vendor:
        _add_package(target)
    return _lock(folder, target)


def check_version(metadata: dict[str, object], where: str) -> str:
    """Return the version, which must stand in the changelog.

    Raises:
        ConfigError: it does not.
    """
    version, changelog = metadata.get("version"), metadata.get("changelog")
    if not isinstance(version, str) or not re.fullmatch(r"\d+(\.\d+)+", version):
        raise ConfigError(f"version is {version!r}", where=where, remedy="give numbers and dots, such as 0.1.0")
    if not isinstance(changelog, dict) or version not in changelog:
        raise ConfigError(f"the changelog says nothing on version {version}", where=where, remedy="add an entry for it")
    return version


def lock_differences(folder: Path) -> list[str]:
    """Compare a release with its lock file; one line a file that is missing, changed or new."""
    locked = read_json(folder / LOCK)["files"]
    found = [path for path in locked if (folder / path).is_file()]
    lines = [f"{path} is missing" for path in locked if path not in found]
    lines += [f"{path} is not in {LOCK}" for path in source.release_files(folder) if path not in locked]
    return lines + [f"{path} was changed" for path in found if source.sha256_of(folder / path) != locked[path]]


def _refuse_half_given(release: Release) -> None:
    pairs = [("--data_source", "--data_license"), ("--version", "--change")]
    values = [(release.data_source, release.data_license), (release.version, release.change)]
    for (first, second), (a, b) in zip(pairs, values, strict=True):
        if (a is None) != (b is None):
            raise ConfigError(f"{first} and {second} go together", where="release", remedy="give both, or neither")
    if release.weights is None and any((release.metrics, release.data_source, release.weights_url)):
        raise ConfigError("there are no weights to describe", where="release", remedy="give --weights")


def _add_weights(target: Path, release: Release, weights: Path) -> None:
    from medmamba_monai.bundling import trained

    info = trained.add_weights(target, weights)
    beside = (weights.with_name("metrics.json"), weights.parent.parent / "eval" / "metrics.json")
    metrics = release.metrics or next((file for file in beside if file.is_file()), beside[0])
    trained.describe(target, info, trained.measured(metrics, info), release.data_source)
    if release.data_license is not None:
        if not release.data_license.is_file():
            raise ConfigError("there is no such file", where=f"--data_license {release.data_license}")
        shutil.copyfile(release.data_license, target / "docs" / "data_license.txt")
    model = target / trained.MODEL
    if model.stat().st_size > LARGE:
        (target / "large_files.yml").write_text(_large_files(model, release.weights_url), encoding="utf-8")


def _large_files(file: Path, url: str) -> str:
    """List a file as MONAI's download_large_files reads it: one that is in place is proved, else it is downloaded."""
    entry = {"path": f"models/{file.name}", "url": url, "hash_val": source.sha256_of(file), "hash_type": "sha256"}
    lines = [f"{'- ' if key == 'path' else '  '}{key}: {json.dumps(value)}" for key, value in entry.items()]
    return "\n".join(["large_files:", *lines, ""])


def _add_package(target: Path) -> None:
    """Carry the package, and require what it imports in place of it."""
    files = vendor.vendor(target)
    metadata = read_json(target / METADATA)
    required = metadata["required_packages_version"]
    required.pop(vendor.NAME, None)
    required.update({name: version for name, version in vendor.needed_packages(files).items() if name not in required})
    (target / METADATA).write_text(json_text(metadata), encoding="utf-8")
    rewrite_card(target, {WHERE_TO_RUN: HERE})


def _lock(folder: Path, target: Path) -> dict[str, str]:
    files = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    # the package is public as it is; its documentation may show what a path looks like
    ours = [path for path in files if not path.startswith(f"{vendor.NAME}/")]
    refuse_personal_paths(target, ours, own=[str(folder.parent), str(target.parent)])
    digests = {path: source.sha256_of(target / path) for path in files}
    metadata = read_json(target / METADATA)
    content = {
        "name": target.name,
        "version": metadata["version"],
        vendor.NAME: medmamba_monai.__version__,
        "files": digests,
    }
    (target / LOCK).write_text(json_text(content), encoding="utf-8")
    return digests
