"""The command line: ``python -m medmamba_monai VERB``.

A verb is one module, imported only when it is used, with ``add_arguments(parser)`` and
``run(arguments) -> exit code``; adding a verb is adding that module and one line to `VERBS`. A module with
``TAKES_OVERRIDES = True`` gets what the parser does not know, keys of a bundle, as the list ``arguments.overrides``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import medmamba_monai
from medmamba_monai.errors import CheckpointError, DataError, MedMambaError

__all__ = ["VERBS", "Verb", "main"]


class Verb(NamedTuple):
    """Where a verb lives and what the list of verbs says about it."""

    module: str
    summary: str


VERBS = {
    "demo": Verb("medmamba_monai.demo", "train, evaluate and predict on phantoms or on your own images"),
    "doctor": Verb("medmamba_monai.doctor", "versions, devices and scan backends, and why one cannot run"),
    "data": Verb(
        "medmamba_monai.data.command", "check a data set: unreadable files, duplicates, patients in two splits"
    ),
    "bundle": Verb("medmamba_monai.bundling.command", "build the bundles from configs/; verify, pack and publish them"),
    "compare": Verb(
        "medmamba_monai.bundling.compare_command", "compare two models on the same cases, and say what is noise"
    ),
    "cross_validate": Verb(
        "medmamba_monai.bundling.cross_validate_command", "train and evaluate a bundle over folds and seeds, and pool"
    ),
    "export": Verb(
        "medmamba_monai.bundling.export_command", "write trained weights as TorchScript, ONNX or torch.export"
    ),
    "explain": Verb("medmamba_monai.bundling.explain_command", "show which pixels speak for a class, as overlays"),
    "report": Verb("medmamba_monai.report.command", "make the figures and report.html of an evaluation from its files"),
    "tune": Verb("medmamba_monai.bundling.tune_command", "search over keys of a bundle with Optuna, by validation"),
}
"""Every verb by name."""

EXIT_CONFIG = 2
EXIT_DATA = 3


def _parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {name:<15} {verb.summary}" for name, verb in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="python -m medmamba_monai",
        description="MedMamba networks and bundles for medical image classification.",
        epilog=f"verbs:\n{verbs}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"medmamba_monai {medmamba_monai.__version__}")
    parser.add_argument("verb", choices=sorted(VERBS), metavar="VERB", help="what to do, see below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the verb's own; VERB --help lists them")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the arguments after the program's name; the process's own when None.

    Returns:
        0 on success, 2 for wrong arguments or configuration, 3 for data or weights that cannot be used.
    """
    given = _parser().parse_args(argv)
    module = importlib.import_module(VERBS[given.verb].module)
    takes_overrides = bool(getattr(module, "TAKES_OVERRIDES", False))
    parser = argparse.ArgumentParser(
        prog=f"python -m medmamba_monai {given.verb}",
        description=VERBS[given.verb].summary,
        allow_abbrev=not takes_overrides,  # --seed is a key of bundles and no short form of --seeds
    )
    module.add_arguments(parser)
    arguments, unknown = parser.parse_known_args(given.arguments)
    if unknown and not takes_overrides:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.overrides = unknown
    try:
        return int(module.run(arguments))
    except MedMambaError as error:
        print(error, file=sys.stderr)
        return EXIT_DATA if isinstance(error, (DataError, CheckpointError)) else EXIT_CONFIG
