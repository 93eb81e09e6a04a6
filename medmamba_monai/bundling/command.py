"""The command line verb ``bundle``. Imported by medmamba_monai.cli when the verb is used."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medmamba_monai.bundling.build import build, differences, find_root

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and options of the verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    action = actions.add_parser("build", help="render configs/ into bundles/")
    action.add_argument("--check", action="store_true", help="write nothing; exit with 2 when a file differs")
    action.add_argument("--root", type=Path, help="the repository; default: this folder or one above it")


def run(arguments: argparse.Namespace) -> int:
    """Carry the action out and return the exit code."""
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
