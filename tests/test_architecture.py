"""Imports point downwards only, heavy packages are imported where they are used, files lie where docs/ says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "medmamba_monai"

# A package may import from those below it; those on one line do not import each other.
LAYERS = [
    {"errors"},
    {"ops"},
    {"networks"},
    {"data", "engines", "explain", "handlers", "metrics", "registration"},
    {"figures"},
    {"report"},
    {"bundling"},
    {"benchmarks", "cli", "demo", "doctor"},
    {"__main__"},
]
# The command line loads verbs by name; the package's face registers the network.
ALLOWED = {("__init__", "errors"), ("__init__", "networks"), ("__init__", "registration"), ("cli", "__init__")}
NEVER = {"einops", "timm", "pickle5"}
LIGHT = {"errors", "ops", "networks", "registration", "__init__"}
UNIX = {"fcntl", "grp", "pwd", "resource", "termios"}  # Windows goes without them
HEAVY = {"monai", "mlflow", "matplotlib", "pydicom", "triton", "sklearn", "ignite", "nibabel", "mamba_ssm"}


def unit(path: Path) -> str:
    """The part of the package a file belongs to: its folder, or its own name at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every imported module by its full name, and whether it is imported at the top of the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = ("medmamba_monai", *path.relative_to(PACKAGE).parent.parts)
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            found += [(f"{base}.{alias.name}", id(node) in top) for alias in node.names]
    return found


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def violations(path: Path) -> list[str]:
    here = unit(path)
    wrong = []
    for name, at_top in imports(path):
        first, *rest = name.split(".")
        if first in NEVER:
            wrong.append(f"imports {name}")
        if first in UNIX and at_top:
            wrong.append(f"imports {name}, which not every system has")
        on_request = path.parent.name == "kernels"  # loaded by the backend that was asked for
        if first in HEAVY and here in LIGHT and not on_request and (at_top or first == "monai"):
            wrong.append(f"imports {name} in a light part")
        there = rest[0] if rest else "__init__"
        if there == "__init__" and here not in LIGHT:
            continue  # the version
        if first != "medmamba_monai" or there == here or (here, there) in ALLOWED or there.startswith("__version"):
            continue
        if not (PACKAGE / there).exists() and not (PACKAGE / f"{there}.py").exists():
            continue  # a name of the package's face
        if here == "__init__" or layer(there) >= layer(here):
            wrong.append(f"{here} imports {name}")
    return wrong


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    assert violations(path) == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("networks/medmamba.py", "import monai"),
        ("ops/orders.py", "from ..networks import MedMamba"),
        ("data/splits.py", "from ..handlers import CheckpointHandler"),
        ("errors.py", "from .ops import explain"),
        ("engines/step.py", "import einops"),
        ("benchmarks/scaling.py", "import resource"),
    ],
)
def test_a_planted_import_is_seen(place: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for names in LAYERS for n in names]:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    planted = tmp_path / place
    planted.parent.mkdir(parents=True, exist_ok=True)
    if planted.is_dir():
        planted.rmdir()
    planted.write_text(line, encoding="utf-8")
    assert violations(planted)


def test_everything_is_in_a_layer() -> None:
    known = {name for names in LAYERS for name in names} | {"__init__"}
    assert {unit(path) for path in FILES} <= known


def test_the_top_level_is_what_it_should_be() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    built = {"build", "dist", "demo", "runs", "__pycache__", "medmamba_monai.egg-info"}
    assert folders - built == {"bundles", "configs", "docs", "medmamba_monai", "tests"}


def test_every_module_has_its_test_file() -> None:
    """tests/ mirrors the package; what a neighbour's tests cover stands here, with the neighbour."""
    elsewhere = {
        "cli.py": "bundling/test_command.py",
        "__main__.py": "bundling/test_command.py",
        "contract.py": "ops/selective_scan/test_functional.py",
        "library.py": "ops/selective_scan/test_functional.py",
        "kernels": "ops/selective_scan/test_triton.py",
    }
    missing = []
    for path in FILES:
        relative = path.relative_to(PACKAGE)
        neighbour = elsewhere.get(path.parent.name) or elsewhere.get(path.name)
        expected = Path(neighbour) if neighbour else relative.parent / f"test_{path.name}"
        if path.name != "__init__.py" and not (ROOT / "tests" / expected).exists():
            missing.append(str(relative))
    assert missing == []
