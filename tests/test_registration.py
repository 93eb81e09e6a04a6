"""Registration with MONAI in both import orders, and what importing the package must not load; in new processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

CONFIG = """
from monai.bundle import ConfigParser
small = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64], "num_classes": 2}
parser = ConfigParser({
    "imports": ["$import medmamba_monai"],
    "theirs": {"_requires_": "@imports", "_target_": "monai.networks.nets.MedMamba", **small},
    "ours": {"_target_": "medmamba_monai.networks.MedMamba", **small},
})
assert type(parser.get_parsed_content("theirs")) is type(parser.get_parsed_content("ours"))
print("works")
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "imports",
    ["import medmamba_monai, monai", "import monai, medmamba_monai"],
    ids=["ours-first", "monai-first"],
)
def test_targets_work_in_configs(imports: str) -> None:
    assert run(imports + CONFIG) == "works"


def test_importing_stays_light() -> None:
    heavy = ["monai", "triton", "mlflow", "matplotlib", "pydicom", "sklearn", "ignite", "scipy"]
    code = "import sys, torch; before = set(sys.modules); import medmamba_monai; new = set(sys.modules) - before"
    assert run(f"{code}; print([m for m in {heavy} if m in new])") == "[]"
