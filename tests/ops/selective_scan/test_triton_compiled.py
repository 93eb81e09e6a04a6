"""The kernels compiled for sm_90 without a GPU: registers, spills and instructions per element, so that a regression shows.

The backend runs on meta tensors at the sizes of the tiny preset's stages; a stand-in for each kernel writes down what it
is launched with, and Triton's compiler and its assembler do the rest. Instructions are counted in the machine code.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from medmamba_monai.ops.selective_scan import triton as backend
from medmamba_monai.ops.selective_scan.contract import DirectionalInputs, SequenceInputs

triton = pytest.importorskip("triton", reason="the package triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from medmamba_monai.ops.selective_scan.kernels import launch  # noqa: E402

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter's kernels cannot be compiled"
)

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
KERNELS = ("expand_steps", "merge_directions", "scan_forward", "scan_backward", "span_ends", "span_starts")
STAGES = {1: (3136, 96, 3), 2: (784, 192, 6), 3: (196, 384, 12), 4: (49, 768, 24)}  # L, E, R
STATES, DIRECTIONS, LANES = 16, 4, 32
_TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}


class Loop(NamedTuple):
    """An innermost or outer loop of the machine code."""

    size: int  # instructions
    counts: Counter[str]


class Build(NamedTuple):
    """A compiled kernel."""

    registers: int
    stack: int
    loops: list[Loop]
    instructions: Counter[str]


def instructions_of(code: str) -> list[tuple[int, str]]:
    return [(int(m[1], 16), m[2]) for m in re.finditer(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", code)]


def operation(text: str) -> str:
    return re.sub(r"^@!?U?P\d+\s+", "", text).split()[0].split(".")[0]


def loops_of(code: str) -> list[Loop]:
    """The bodies of all backward branches, those to themselves at the end left out."""
    listing, found = instructions_of(code), []
    for address, text in listing:
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if target and int(target[1], 16) < address:
            body = Counter(operation(t) for a, t in listing if int(target[1], 16) <= a <= address)
            found.append(Loop(body.total(), body))
    return found


def signature_of(kernel: Any, arguments: dict[str, Any]) -> tuple[Any, ...]:
    """What Triton would make of the arguments: types, constants and which numbers 16 divides."""
    signature: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    hints: dict[tuple[int, ...], Any] = {}
    divisible = [["tt.divisibility", 16]]

    def number(value: int, path: tuple[int, ...]) -> str:
        if value % 16 == 0:
            hints[path] = divisible
        return "i32" if -(2**31) <= value < 2**31 else "i64"

    for index, name in enumerate(kernel.arg_names):
        value = arguments[name]
        if kernel.params[index].is_constexpr or value is None or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name], hints[(index,)] = _TYPES[value.dtype], divisible
        elif isinstance(value, tuple):
            signature[name] = tuple(number(v, (index, i)) for i, v in enumerate(value))
        else:
            signature[name] = number(value, (index,))
    return signature, constants, hints


_builds: dict[str, Build] = {}


def build(kernel: Any, arguments: dict[str, Any], options: dict[str, Any]) -> Build:
    signature, constants, hints = signature_of(kernel, arguments)
    key = repr((kernel.__name__, signature, constants, hints, options))
    if key not in _builds:
        source = ASTSource(kernel, signature, constants, hints)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, LANES), options=options)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernel.cubin"
            path.write_bytes(compiled.asm["cubin"])
            code, usage = (
                subprocess.run([TOOL, flag, path], capture_output=True, text=True, check=True).stdout
                for flag in ("-sass", "-res-usage")
            )
        resources = re.search(r"REG:(\d+) STACK:(\d+)", usage)
        assert resources, usage
        every = Counter(operation(text) for _, text in instructions_of(code))
        _builds[key] = Build(int(resources[1]), int(resources[2]), loops_of(code), every)
    return _builds[key]


class Recorder:
    """Stands in for a kernel and writes down its launches."""

    def __init__(self, kernel: Any, launches: list[tuple[Any, tuple[int, ...], dict[str, Any]]]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return functools.partial(self._launch, grid)

    def _launch(self, grid: tuple[int, ...], *positional: Any, **named: Any) -> None:
        arguments = dict(zip(self.kernel.arg_names, positional, strict=False)) | named
        self.launches.append((self.kernel, grid, arguments))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, tuple[int, ...], dict[str, Any]]]:
    recorded: list[tuple[Any, tuple[int, ...], dict[str, Any]]] = []
    for name in KERNELS:
        monkeypatch.setattr(launch, name, Recorder(getattr(launch, name), recorded))
    monkeypatch.setattr(launch, "_dot_precision", lambda device: "tf32x3")  # what it is on NVIDIA's GPUs
    return recorded


def stage_inputs(stage: int, batch: int, dtype: torch.dtype) -> DirectionalInputs:
    length, channels, rank = STAGES[stage]

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    projected = empty(batch, length, DIRECTIONS, rank + 2 * STATES, dtype=dtype)
    dt, B, C = projected.split([rank, STATES, STATES], dim=-1)
    return DirectionalInputs(
        u=empty(batch, length, channels, dtype=dtype),
        dt=dt,
        A=empty(DIRECTIONS, channels, STATES),
        B=B,
        C=C,
        D=empty(DIRECTIONS, channels),
        dt_weight=empty(DIRECTIONS, channels, rank),
        dt_bias=empty(DIRECTIONS, channels),
        order=empty(DIRECTIONS, length, dtype=torch.int64),
    )


def builds(launches: list[Any], name: str) -> list[tuple[Build, dict[str, Any], tuple[int, ...]]]:
    found = []
    for kernel, grid, arguments in launches:
        if kernel.__name__ == name:
            options = {k: arguments[k] for k in ("num_warps", "enable_fp_fusion") if k in arguments}
            found.append((build(kernel, arguments, options), arguments, grid))
    assert found, f"{name} was not launched"
    return found


def per_element(loop: Loop, arguments: dict[str, Any]) -> float:
    """Issued instructions for one state's step: what a warp executes over what its lanes hold."""
    held = arguments["BLOCK_E"] * arguments["BLOCK_N"] * arguments["UNROLL"] / LANES
    return loop.size / held


def scan_loop(build: Build) -> Loop:
    """The innermost loop over steps: of the loops with as many exponentials as the busiest, the shortest."""
    most = max(loop.counts["MUFU"] for loop in build.loops)
    return min((loop for loop in build.loops if loop.counts["MUFU"] == most), key=lambda loop: loop.size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stage", STAGES)
def test_forward(stage: int, dtype: torch.dtype, launches: list[Any]) -> None:
    """Below 8 instructions an element: there the exponentials (16 a cycle and multiprocessor) are the bound."""
    y, saved = backend.directional_forward(stage_inputs(stage, 64, dtype), False)
    assert y.shape[1:] == STAGES[stage][:2] and saved.numel() == 0
    for compiled, arguments, _ in builds(launches, "scan_forward"):
        loop = scan_loop(compiled)
        assert loop.counts["MUFU"] == arguments["BLOCK_E"] * STATES * arguments["UNROLL"] // LANES  # one each
        assert loop.counts["SHFL"] == 0 and compiled.stack == 0
        assert compiled.instructions["LDL"] == compiled.instructions["STL"] == 0
        assert compiled.registers <= 112
        assert per_element(loop, arguments) <= 8.3
