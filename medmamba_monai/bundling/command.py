"""The command line verb ``bundle``. Imported by medmamba_monai.cli when the verb is used."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medmamba_monai.bundling.build import build, differences, find_root
from medmamba_monai.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medmamba_monai.bundling.release import Release
    from medmamba_monai.bundling.verify import Outcome

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and options of the verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    action = actions.add_parser("build", help="render configs/ into bundles/")
    action.set_defaults(act=_build)
    action.add_argument("--check", action="store_true", help="write nothing; exit with 2 when a file differs")
    _add_root(action)

    action = actions.add_parser(
        "verify",
        help="run the checks of MONAI's Model Zoo on bundles",
        description="Run the checks of MONAI's Model Zoo on temporary copies of bundles, on the CPU, without network. "
        "Weights are generated where none are trained. This executes the bundles' configs and scripts.",
    )
    action.set_defaults(act=_verify)
    action.add_argument("names", nargs="*", metavar="NAME", help="name, folder or zip of a bundle")
    action.add_argument("--all", action="store_true", help="every bundle of the repository")
    action.add_argument("--schemas", type=Path, help="metadata schemas; default: configs/schema of the repository")
    _add_root(action)

    action = actions.add_parser("pack", help="make the zip of a release")
    action.set_defaults(act=_pack)
    action.add_argument("name", metavar="NAME", help="name or folder of a bundle")
    action.add_argument("--output", type=Path, required=True, help="folder for NAME_vVERSION.zip")
    _add_release(action, "release without weights")

    action = actions.add_parser(
        "publish",
        help="upload a trained bundle to the Hugging Face hub",
        description="Upload a trained bundle to the Hugging Face hub through MONAI, tagged with its version. "
        "Only files of the release are sent, never images, data lists or outputs of runs.",
    )
    action.set_defaults(act=_publish)
    action.add_argument("name", metavar="NAME", help="name or folder of a bundle")
    action.add_argument("--repo_id", required=True, metavar="ORG/NAME", help="repository on the hub; made if missing")
    action.add_argument("--token", help="default: the variable HF_TOKEN, or the login stored on this machine")
    action.add_argument("--public", action="store_true", help="make a new repository public")
    action.add_argument("--dry_run", action="store_true", help="list what would be uploaded, send nothing")
    _add_release(action, "models/model.pt of the bundle")


def _add_root(action: argparse.ArgumentParser) -> None:
    action.add_argument("--root", type=Path, help="the repository; default: this folder or one above it")


def _add_release(action: argparse.ArgumentParser, default: str) -> None:
    add = action.add_argument
    add("--weights", type=Path, help=f"model.pt of a training, model.json beside it; default: {default}")
    add("--metrics", type=Path, help="metrics.json of their evaluation; default: beside them, or ../eval/metrics.json")
    add("--data_source", help="what they were trained on, if not the data set that the metadata name")
    add("--data_license", type=Path, help="text file with the conditions of that data")
    add("--weights_url", default="", help="address of the weights for large_files.yml, if over 25 MB")
    add("--vendor", action="store_true", help="carry the needed part of medmamba_monai; runs where it is not installed")
    add("--version", help="number of the release; default: as in metadata.json")
    add("--change", help="what is new in it, for the changelog; goes with --version")
    _add_root(action)


def run(arguments: argparse.Namespace) -> int:
    """Carry the action out and return the exit code."""
    return int(arguments.act(arguments))


def _build(arguments: argparse.Namespace) -> int:
    root = find_root((arguments.root or Path.cwd()).resolve())
    if not arguments.check:
        changes = build(root)
        sys.stdout.write("".join(f"{line}\n" for line in changes) or "bundles are up to date\n")
        return 0
    found = differences(root)
    if found:
        lines = "\n  ".join(found)
        remedy = "run `python -m medmamba_monai bundle build` and commit its result"
        sys.stderr.write(f"bundles and configs are out of step:\n  {lines}\nRemedy: {remedy}\n")
        return 2
    sys.stdout.write("bundles are up to date\n")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from medmamba_monai.bundling import source

    if arguments.all == bool(arguments.names):
        raise ConfigError("no bundle is named, or --all is given beside names", remedy="give names, or --all")
    given = arguments.names
    bundles = [Path(name) if name.endswith(".zip") else source.find_bundle(name, arguments.root) for name in given]
    bundles = bundles or source.all_bundles(arguments.root)
    schemas = arguments.schemas or find_root((arguments.root or Path.cwd()).resolve()) / "configs" / "schema"

    from medmamba_monai.bundling.checks import GENERATED
    from medmamba_monai.bundling.verify import table, verify

    outcomes: list[Outcome] = []

    def made() -> Iterator[Outcome]:
        for bundle in bundles:
            for outcome in verify(bundle, schemas):
                outcomes.append(outcome)
                yield outcome

    for line in table(made()):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    failed = [outcome for outcome in outcomes if not outcome.ok]
    random = {outcome.bundle for outcome in outcomes if outcome.detail.startswith(GENERATED)}
    sys.stdout.write(f"{len(outcomes) - len(failed)} of {len(outcomes)} checks passed, {len(bundles)} bundles")
    sys.stdout.write(f", {len(random)} with generated weights, none trained\n" if random else "\n")
    return 2 if failed else 0


def _release(arguments: argparse.Namespace) -> Release:
    from medmamba_monai.bundling.release import Release

    return Release(**{field: getattr(arguments, field) for field in Release.__dataclass_fields__})


def _pack(arguments: argparse.Namespace) -> int:
    from medmamba_monai.bundling.pack import pack
    from medmamba_monai.bundling.source import find_bundle

    packed = pack(find_bundle(arguments.name, arguments.root), arguments.output, _release(arguments))
    sys.stdout.write("".join(f"  {file}\n" for file in packed.files if not file.startswith("medmamba_monai/")))
    carried = sum(file.startswith("medmamba_monai/") for file in packed.files)
    sys.stdout.write(f"  medmamba_monai/ ({carried} files)\n" if carried else "")
    sys.stdout.write(f"left out: {', '.join(packed.left_out)}\n" if packed.left_out else "")
    sys.stdout.write(f"wrote {packed.file}\nsha256 {packed.sha256}\n")
    return 0


def _publish(arguments: argparse.Namespace) -> int:
    from medmamba_monai.bundling.publish import publish
    from medmamba_monai.bundling.source import find_bundle

    sent = publish(
        find_bundle(arguments.name, arguments.root),
        arguments.repo_id,
        _release(arguments),
        token=arguments.token,
        public=arguments.public,
        dry_run=arguments.dry_run,
    )
    sys.stdout.write("".join(f"{size:>12} {path}\n" for path, size in sent.files.items()))
    what = "would be uploaded to" if arguments.dry_run else "uploaded to"
    sys.stdout.write(f"{len(sent.files)} files {what} {arguments.repo_id}, version {sent.version}\n")
    return 0
