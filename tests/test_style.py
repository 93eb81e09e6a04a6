"""The house style, as far as a syntax tree shows it: docstrings, annotations, sizes, things that must not occur."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "medmamba_monai"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 450, 80
MAX_KERNEL_LINES = 180  # a GPU kernel is one function, whose registers are its variables
FORBIDDEN_CALLS = {"eval", "exec", "breakpoint"}


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public functions, classes, and methods of public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                        yield method


def faults(source: str) -> list[str]:
    tree = ast.parse(source)
    wrong = []
    if not ast.get_docstring(tree):
        wrong.append("no module docstring")
    if source.count("\n") > MAX_FILE_LINES:
        wrong.append(f"{source.count(chr(10))} lines")
    for node in public(tree):
        if not ast.get_docstring(node):
            wrong.append(f"{node.name}: no docstring")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            kernel = any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
            if length > (MAX_KERNEL_LINES if kernel else MAX_FUNCTION_LINES):
                wrong.append(f"{node.name}: {length} lines")
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            wrong.append(f"line {node.lineno}: bare except")
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in FORBIDDEN_CALLS:
                wrong.append(f"line {node.lineno}: {name}")
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if (keyword.arg, value) in {("weights_only", False), ("allow_pickle", True), ("shell", True)}:
                    wrong.append(f"line {node.lineno}: {keyword.arg}={value}")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_style(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "x = 1",
        '"""Doc."""\ndef f():\n    pass',
        '"""Doc."""\ntry:\n    pass\nexcept:\n    pass',
        '"""Doc."""\ntorch.load(p, weights_only=False)',
        '"""Doc."""\neval("1")',
        '"""Doc."""\n' + "x = 1\n" * 451,
        '"""Doc."""\ndef _f():\n' + "    x = 1\n" * 81,
    ],
)
def test_planted_faults_are_seen(source: str) -> None:
    assert faults(source)
