"""The part of the package that a bundle carries: found from imports, complete, unchanged, and no more than needed."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
import torch

from medmamba_monai.bundling import vendor
from medmamba_monai.bundling.pack import pack
from medmamba_monai.bundling.release import Release
from medmamba_monai.errors import ConfigError

from .conftest import REPOSITORY


@pytest.fixture(scope="module")
def needed() -> list[str]:
    bundles = sorted((REPOSITORY / "bundles").iterdir())
    return vendor.needed_modules(name for folder in bundles for name in vendor.mentioned_names(folder))


def test_the_names_a_bundle_mentions(bundle: Path) -> None:
    names = vendor.mentioned_names(bundle)
    assert {"medmamba_monai", "medmamba_monai.data.ReadImaged", "medmamba_monai.networks.create"} <= set(names)
    assert all(name.split(".")[0] == "medmamba_monai" for name in names)


def test_modules_loaded_by_a_name_made_at_run_time_are_needed(needed: list[str]) -> None:
    from medmamba_monai.ops.selective_scan.dispatch import BACKENDS

    assert {f"medmamba_monai/ops/selective_scan/{name}.py" for name in BACKENDS} <= set(needed)
    assert "medmamba_monai/ops/selective_scan/kernels/forward.py" in needed


def test_tools_of_the_repository_are_not_needed(needed: list[str]) -> None:
    for part in ("cli.py", "demo.py", "benchmarks/", "bundling/build.py", "bundling/vendor.py", "doctor.py"):
        assert not [file for file in needed if file.startswith(f"medmamba_monai/{part}")]


def test_imports_in_every_form_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "__init__.py": "",
        "a.py": "from . import b\nfrom .sub import deep\ndef f():\n    import medmamba_monai.c\n",
        "b.py": "from __future__ import annotations\nimport json, PIL.Image\n",
        "c.py": "if True:\n    from medmamba_monai.sub.deep import x\n",
        "unused.py": "import gone\n",
        "sub/__init__.py": "from ..errors import E",
        "sub/deep.py": "from importlib import import_module\nimport_module(f'.{1}', __package__)\nx = 1",
        "sub/dynamic.py": "import triton",
        "errors.py": "E = 1",
    }
    for name, text in files.items():
        path = tmp_path / "medmamba_monai" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(vendor, "PACKAGE", tmp_path / "medmamba_monai")
    vendor._imports.cache_clear()
    try:
        needed = vendor.needed_modules(["medmamba_monai.a.f"])
        assert needed == sorted(f"medmamba_monai/{name}" for name in files if name != "unused.py")
        assert list(vendor.needed_packages(needed)) == ["pillow"]
        with pytest.raises(ConfigError, match="gone"):
            vendor.needed_packages(["medmamba_monai/unused.py"])
    finally:
        vendor._imports.cache_clear()


def test_a_name_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(ConfigError, match="medmamba_monai.engine.step"):
        vendor.needed_modules(["medmamba_monai.engine.step"])
    assert vendor.needed_modules(["medmamba_monai.MedMamba"]) == vendor.needed_modules(["medmamba_monai"])


def test_packages_are_those_that_installing_this_one_brings(needed: list[str]) -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    required = set(re.findall(r"^[\w.-]+", setup["options"]["install_requires"], re.MULTILINE))
    packages = vendor.needed_packages(needed)
    assert set(packages) <= required
    assert {"mlflow", "nibabel", "pydicom", "pytorch-ignite"} <= set(packages)
    assert all(re.match(r"\d+\.\d+", version) for version in packages.values())


def test_the_copy_is_compared_with_the_package(bundle: Path) -> None:
    files = vendor.vendor(bundle)
    assert vendor.differences(bundle) == []
    (bundle / files[5]).write_text("x = 1")
    (bundle / files[7]).unlink()
    (bundle / "medmamba_monai" / "extra.py").write_text("")
    found = " ".join(vendor.differences(bundle))
    for fault in (f"{files[5]} differs", f"{files[7]} is missing", "extra.py is not needed"):
        assert fault in found


# Runs from the root of the unpacked bundle: every mode, and the logits of the trained network on a fixed image.
DRIVER = """
import json, sys, torch
import monai.bundle
import medmamba_monai
assert medmamba_monai.__file__.startswith(sys.argv[1]), medmamba_monai.__file__
data = {"dataset_dir": sys.argv[2], "mlflow": False, "device": "cpu", "batch_size": 6}
monai.bundle.run(config_file="configs/train.json", image_size=32, epochs=1, progress=False, **data)
monai.bundle.run(config_file=["configs/train.json", "configs/evaluate.json"], **data)
monai.bundle.run(config_file="configs/inference.json", output_dir="predicted", **data)
network = monai.bundle.load(sys.argv[3], bundle_dir="..", workflow_type="inference", device="cpu").eval()
with torch.no_grad():
    logits = network(torch.linspace(-2, 2, 2 * 40 * 48).reshape(2, 1, 40, 48))
torch.save(logits, "logits.pt")
"""


def environment_without_the_package(folder: Path) -> Path:
    """A new environment with everything of the one at hand but medmamba_monai; return its python."""
    venv.EnvBuilder(with_pip=False).create(folder)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for found in Path(sysconfig.get_path("purelib")).iterdir():
        # an editable installation is a .pth file or finder of the package's name
        if "medmamba" not in found.name:
            (site / found.name).symlink_to(found)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


@pytest.mark.slow
def test_a_vendored_bundle_works_where_the_package_is_not_installed(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai.bundle import load

    from medmamba_monai.data.phantom import write_phantoms

    data = tmp_path / "data"
    write_phantoms(data, per_class=10, size=40)
    packed = pack(bundle, tmp_path / "release", Release(vendor=True))
    shutil.unpack_archive(packed.file, tmp_path / "empty")
    root = tmp_path / "empty" / bundle.name
    python = environment_without_the_package(tmp_path / "clean")
    environment: dict[str, Any] = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"MEDMAMBA_SCAN_BACKEND": "portable", "OMP_NUM_THREADS": "1"}

    def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [str(python), *arguments]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)

    outside = process("-c", "import torch, medmamba_monai", cwd=tmp_path)
    assert outside.returncode != 0
    assert "No module named 'medmamba_monai'" in outside.stderr

    done = process("-c", DRIVER, str(root), str(data), bundle.name, cwd=root)
    assert done.returncode == 0, done.stderr
    assert json.loads((root / "eval" / "metrics.json").read_text())["n"] > 0
    state = torch.load(root / "models" / "checkpoint.pt", weights_only=True)
    assert state["iteration"] == 2

    monkeypatch.setenv("MEDMAMBA_SCAN_BACKEND", "portable")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = load(bundle.name, bundle_dir=root.parent, workflow_type="inference", device="cpu").eval()
        with torch.no_grad():
            logits = network(torch.linspace(-2, 2, 2 * 40 * 48).reshape(2, 1, 40, 48))
    finally:
        torch.set_num_threads(threads)
    assert sys.modules["medmamba_monai"].__file__ == str(REPOSITORY / "medmamba_monai" / "__init__.py")
    assert torch.equal(logits, torch.load(root / "logits.pt", weights_only=True))
