"""Choose a benchmark by name; each is a module with ``add_arguments`` and ``run``."""

from __future__ import annotations

import argparse
import importlib
import sys

from ..errors import MedMambaError

BENCHMARKS = {
    "scan": "the directional scan by every backend, on the stage shapes of the tiny preset",
    "network": "whole networks beside MONAI's: inference and training step",
    "scaling": "time and memory against the number of pixels, with a plot",
    "data_check": "images a second that the check of a data set reads on one core",
    "bootstrap": "seconds for the intervals of all metrics of 10,000 images from 1,000 resamples",
    "accuracy": "bundle-trained networks against a linear baseline on real images",
    "rivals": "our network beside MONAI's, trained alike on the same images",
    "explanations": "faithfulness of explanations of bundle-trained networks on real images",
    "ood": "telling images of other packs from those a bundle-trained network knows, by several scores",
}


def main() -> int:
    """Parse the command line and run one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m medmamba_monai.benchmarks")
    names = parser.add_subparsers(dest="name", required=True)
    for name, summary in BENCHMARKS.items():
        module = importlib.import_module(f".{name}", __package__)
        module.add_arguments(names.add_parser(name, help=summary, description=summary))
    arguments = parser.parse_args()
    try:
        importlib.import_module(f".{arguments.name}", __package__).run(arguments)
    except MedMambaError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
