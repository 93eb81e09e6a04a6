"""The kernels compiled for sm_90 without a GPU: registers, spills and instructions, so that a regression shows.

The backend runs on meta tensors at the sizes of the tiny preset's stages; a stand-in for each kernel writes down what
it is launched with, and Triton's compiler and its assembler do the rest. Instructions are counted in machine code.
"""

from __future__ import annotations

import functools
import math
import os
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from medmamba_monai.ops import strides
from medmamba_monai.ops.selective_scan import triton as backend
from medmamba_monai.ops.selective_scan.contract import DirectionalInputs, SequenceInputs
from medmamba_monai.ops.selective_scan.functional import flatten_strides

triton = pytest.importorskip("triton", reason="the package triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from medmamba_monai.ops.selective_scan.kernels import fused, launch  # noqa: E402

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter's kernels cannot be compiled"
)

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
KERNELS = ("expand_steps", "merge_directions", "scan_forward", "scan_backward", "span_ends", "span_starts")
FUSED = ("merge_norm_gate", "depthwise_silu", "interleave_add")
FUSED_BACKWARD = ("norm_gate_backward", "depthwise_backward", "depthwise_weights", "deinterleave")
STAGES = {1: (3136, 96, 3), 2: (784, 192, 6), 3: (196, 384, 12), 4: (49, 768, 24)}  # L, E, R
STATES, DIRECTIONS, LANES = 16, 4, 32
MOST_REGISTERS = 255  # a thread's on sm_90
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
    intermediate: str  # Triton's own, before it is lowered


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
        # a sum by atomics would depend on the order of the programs: kernels have none, so all are deterministic
        assert not {name for name in every if name.startswith("ATOM") or name == "RED"}, kernel.__name__
        _builds[key] = Build(int(resources[1]), int(resources[2]), loops_of(code), every, compiled.asm["ttir"])
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
    for name in FUSED + FUSED_BACKWARD:
        monkeypatch.setattr(fused, name, Recorder(getattr(fused, name), recorded))
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


def stage_strides(stage: int) -> list[int]:
    """The orders of the scan "cross" as the network gives them."""
    side = math.isqrt(STAGES[stage][0])
    return flatten_strides(strides("cross", (side, side)), torch.empty(DIRECTIONS, side * side, device="meta"))


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


def no_spills(build: Build, allowed: int = 0) -> bool:
    """Whether at most ``allowed`` bytes go to memory for want of registers."""
    touched = build.instructions["LDL"] + build.instructions["STL"]
    return build.stack <= allowed and touched <= allowed // 2


def held(build: Build) -> int:
    """Numbers a thread keeps: in registers, and in memory where those are used up."""
    return build.registers + build.stack // 4


slow = pytest.mark.slow
STAGE_AND_DTYPE = [
    pytest.param(stage, dtype, id=f"{stage}-{dtype}", marks=[] if stage in (1, 4) else [slow])
    for stage in STAGES
    for dtype in (torch.float32, torch.bfloat16)
]


@pytest.mark.parametrize(("stage", "dtype"), STAGE_AND_DTYPE)
def test_forward(stage: int, dtype: torch.dtype, launches: list[Any]) -> None:
    """One exponential an element, of which a scheduler issues one in 8 cycles: about as many other instructions fit."""
    y, saved = backend.directional_forward(stage_inputs(stage, 64, dtype), False, stage_strides(stage))
    assert y.shape[1:] == STAGES[stage][:2] and saved.numel() == 0
    [(compiled, arguments, grid)] = builds(launches, "scan_forward")
    assert grid == (64 * DIRECTIONS * STAGES[stage][1] // 32, 1)
    loop = scan_loop(compiled)
    assert loop.counts["MUFU"] == arguments["BLOCK_E"] * STATES * arguments["UNROLL"] // LANES
    assert loop.counts["SHFL"] == loop.counts["BAR"] == 0  # a lane has all states of its channel
    assert no_spills(compiled)
    assert compiled.registers <= 120
    assert per_element(loop, arguments) <= (8.1 if arguments["EVEN"] else 8.4)
    assert arguments["ORDER"] == 2 and arguments["order_ptr"] is None
    assert arguments["EVEN"] == (stage <= 2)  # lines of 56 and 28 pixels hold whole groups of 4 steps
    assert loop.counts["LDG"] == 40  # of each step: delta, u, and 16 numbers of B and C in fours; no pixel is read


@pytest.mark.slow
def test_forward_by_a_table(launches: list[Any]) -> None:
    """The orders that do not walk along the axes: a load more for each step, on which those of u and y wait."""
    backend.directional_forward(stage_inputs(1, 64, torch.float32), False)
    [(compiled, arguments, _)] = builds(launches, "scan_forward")
    loop = scan_loop(compiled)
    assert no_spills(compiled) and compiled.registers <= 120
    assert arguments["ORDER"] == 1 and loop.counts["LDG"] == 44 and per_element(loop, arguments) <= 8.1


@pytest.mark.parametrize(("stage", "dtype"), [(1, torch.float32), pytest.param(4, torch.bfloat16, marks=slow)], ids=str)
def test_forward_for_training(stage: int, dtype: torch.dtype, launches: list[Any]) -> None:
    """Counts the branch that saves a state as if taken at every step of the loop, not at every eighth."""
    _, saved = backend.directional_forward(stage_inputs(stage, 64, dtype), True, stage_strides(stage))
    [(compiled, arguments, _)] = builds(launches, "scan_forward")
    assert arguments["SAVE"] and saved.numel() == backend.directional_saved_numel(stage_inputs(stage, 64, dtype))
    assert no_spills(compiled) and compiled.registers <= 120
    assert per_element(scan_loop(compiled), arguments) <= (8.8 if stage == 1 else 9.0)


@pytest.mark.parametrize(
    ("stage", "dtype"),
    [(1, torch.float32), pytest.param(1, torch.bfloat16, marks=slow), pytest.param(4, torch.float32, marks=slow)],
    ids=str,
)
def test_backward(stage: int, dtype: torch.dtype, launches: list[Any]) -> None:
    inputs = stage_inputs(stage, 64, dtype)
    saved = torch.empty(backend.directional_saved_numel(inputs), device="meta")
    grads = backend.directional_backward(torch.empty_like(inputs.u), inputs, saved, stage_strides(stage))
    assert [g.shape for g in grads] == [t.shape for t in inputs[:-1]]
    [(compiled, arguments, _)] = builds(launches, "scan_backward")
    # it takes all registers there are: one more shows as a spill, of two with triton 3.7 and none with 3.9
    assert no_spills(compiled, allowed=8) and held(compiled) <= MOST_REGISTERS + 2
    inner = sorted(compiled.loops, key=lambda loop: loop.size)[:-1]  # the longest holds the two others
    again, reverse = inner
    assert again.counts["SHFL"] == 0 and per_element(again, arguments) <= 7.3
    assert per_element(reverse, arguments) <= 28.5


@pytest.mark.parametrize("stage", [1, pytest.param(4, marks=slow)])
def test_step_sizes_and_merge(stage: int, launches: list[Any]) -> None:
    """Around the scan: of both kernels a sixteenth as many elements go through."""
    backend.directional_forward(stage_inputs(stage, 64, torch.float32), False)
    [(expand, arguments, _)] = builds(launches, "expand_steps")
    per_thread = arguments["BLOCK_T"] * arguments["BLOCK_E"] / (LANES * arguments["num_warps"])
    assert no_spills(expand) and expand.registers <= 100 and expand.instructions.total() / per_thread <= 45
    [(merge, arguments, _)] = builds(launches, "merge_directions")
    per_thread = arguments["BLOCK"] / (LANES * arguments["num_warps"])
    assert no_spills(merge) and merge.registers <= 36 and merge.instructions.total() / per_thread <= 22


def test_one_image_in_spans(launches: list[Any]) -> None:
    """A single image is cut into spans: enough programs, and few instructions where exponentials come twice."""
    backend.directional_forward(stage_inputs(1, 1, torch.float32), False)
    [(ends, arguments, grid)] = builds(launches, "span_ends")
    assert grid == (12, 49) and no_spills(ends) and ends.registers <= 72
    assert per_element(scan_loop(ends), arguments) <= 6.4
    [(starts, _, grid)] = builds(launches, "span_starts")
    assert grid == (12,) and no_spills(starts) and starts.registers <= 70
    [(scan, _, grid)] = builds(launches, "scan_forward")
    assert grid == (12, 49) and no_spills(scan) and scan.registers <= 120


def test_unaligned_slices_are_copied(launches: list[Any]) -> None:
    """B and C as slices of one projection start anywhere: read as they are, they would cost 19 % more instructions."""
    backend.directional_forward(stage_inputs(1, 64, torch.float32), False)
    [(_, arguments, _)] = builds(launches, "scan_forward")
    assert arguments["b_strides"] == arguments["c_strides"] == (3136 * 64, 64, 16)


@pytest.mark.parametrize(("stage", "dtype"), [(1, torch.bfloat16), pytest.param(4, torch.float32, marks=slow)], ids=str)
def test_fused_chains(stage: int, dtype: torch.dtype, launches: list[Any]) -> None:
    """Instructions for each number they write; 64 take about as long as reading and writing two floats."""
    inputs = stage_inputs(stage, 64, dtype)
    length, channels, _ = STAGES[stage]
    side = math.isqrt(length)

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    norm = (empty(channels), empty(channels), 1e-5)
    gate = empty(64, length, 2 * channels, dtype=dtype)[..., channels:]
    out, total, saved = backend.directional_gated(inputs, stage_strides(stage), norm, gate, True)
    assert out.shape == gate.shape
    grads = backend.directional_gated_backward(out, inputs, stage_strides(stage), norm, gate, total, saved)
    assert [g.shape for g in grads] == [t.shape for t in (*inputs[:-1], *norm[:2], gate)]
    x, weight = empty(64, side, side, 2 * channels, dtype=dtype), empty(channels, 1, 3, 3)
    y = fused.convolve(x[..., :channels], weight, empty(channels))
    fused.convolve_backward(y, x[..., :channels], weight, empty(channels))
    fused.interleaved(x, x[..., :channels], x[..., channels:])
    fused.interleaved_backward(x, dtype, dtype)
    for name, tile, most, registers in (
        ("merge_norm_gate", ("BLOCK_P", "BLOCK_E"), 55, 102),
        ("norm_gate_backward", ("BLOCK_P", "BLOCK_E"), 80, 135),
        ("depthwise_silu", ("BLOCK_P", "BLOCK_E"), 90, 152),
        ("depthwise_backward", ("BLOCK_P", "BLOCK_E"), 80, 150),
        ("depthwise_weights", ("BLOCK_P", "BLOCK_E"), 80, 133),
        ("interleave_add", ("BLOCK",), 55, 53),
        ("deinterleave", ("BLOCK",), 55, 42),
    ):
        for compiled, arguments, _ in builds(launches, name):
            numbers = math.prod(arguments[n] for n in tile) / (LANES * arguments["num_warps"])
            loop = max((loop.size for loop in compiled.loops), default=0)  # over the blocks of a program
            cost = (loop or compiled.instructions.total()) / numbers
            assert no_spills(compiled) and compiled.registers <= registers, (name, compiled.registers)
            assert cost <= most, (name, cost)


def test_flat_maps_have_offsets_of_64_bits(launches: list[Any]) -> None:
    """Kernels that count through all numbers of a map: every address they form comes from a 64-bit offset."""
    x = torch.empty(2, 1024, 96, device="meta")
    launch.merge(x.view(2, 4, 256, 96), torch.float32)
    fused.interleaved(x, x[..., :48], x[..., 48:])
    fused.interleaved_backward(x, torch.float32, torch.float32)
    for name in ("merge_directions", "interleave_add", "deinterleave"):
        [(compiled, _, _)] = builds(launches, name)
        offsets = re.findall(r"tt\.addptr .*tensor<\d+x!tt\.ptr<\w+>>, tensor<\d+xi(\d+)>", compiled.intermediate)
        assert offsets and set(offsets) == {"64"}, (name, compiled.intermediate)


@pytest.mark.slow
def test_everything_else_compiles(launches: list[Any]) -> None:
    """Sequences with a first and a last state, offsets of more than 32 bits, odd sizes, backward in spans."""

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    sequence = SequenceInputs(
        u=empty(1, 12, 999), delta=empty(1, 12, 999), A=empty(12, 5), B=empty(1, 2, 5, 999), C=empty(1, 2, 5, 999),
        D=empty(12), delta_bias=empty(12), initial_state=empty(1, 12, 5), softplus=True,
    )  # fmt: skip
    y, last, saved = backend.sequence_forward(sequence, True)
    backend.sequence_backward(y, last, sequence, saved)
    single = SequenceInputs(
        u=empty(2, 3, 9),
        delta=empty(2, 3, 9),
        A=empty(3, 4),
        B=empty(2, 3, 4, 9),
        C=empty(2, 3, 4, 9),
        D=None,
        delta_bias=None,
        initial_state=None,
        softplus=False,
    )  # fmt: skip  a channel to a group, as constant matrices come
    y, last, saved = backend.sequence_forward(single, True)
    backend.sequence_backward(y, last, single, saved)
    length, channels = 2**21, 1024
    order = torch.empty(1, length, dtype=torch.int64, device="meta")
    wide = DirectionalInputs(
        u=empty(1, length, channels), dt=empty(1, length, 1, 3), A=empty(1, channels, 8), B=empty(1, length, 1, 8),
        C=empty(1, length, 1, 8), D=empty(1, channels), dt_weight=empty(1, channels, 3), dt_bias=empty(1, channels),
        order=order,
    )  # fmt: skip
    for walk in ([], [0, 2**11, 2**10, 2**10, 1]):
        y, saved = backend.directional_forward(wide, True, walk)
        backend.directional_backward(y, wide, saved, walk)
    volume = empty(2, 9, 10, 11, 24)
    fused.convolve_backward(
        fused.convolve(volume, empty(24, 1, 3, 3, 3), empty(24)), volume, empty(24, 1, 3, 3, 3), empty(24)
    )
    assert {arguments.get("WIDE") for _, _, arguments in launches} == {None, False, True}
    for name, registers in {
        "expand_steps": 165,
        "merge_directions": 36,
        "scan_forward": 110,
        "scan_backward": 185,
        "span_ends": 72,
        "span_starts": 55,
        "depthwise_silu": MOST_REGISTERS,  # with triton 3.7, 187 with 3.9: in 3-D, 27 taps
        "depthwise_backward": MOST_REGISTERS,
        "depthwise_weights": 70,
    }.items():
        for compiled, _, _ in builds(launches, name):
            assert no_spills(compiled, allowed=16 if name == "scan_backward" else 0), (name, compiled.stack)
            assert compiled.registers <= registers, (name, compiled.registers)


def test_planted_regression_is_seen(launches: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Four neighbouring channels to a lane, Triton's own choice, would exchange sums between lanes."""
    monkeypatch.setattr(launch, "_FORWARD_VECTOR", 4)
    backend.directional_forward(stage_inputs(1, 64, torch.float32), False)
    [(compiled, arguments, _)] = builds(launches, "scan_forward")
    loop = scan_loop(compiled)
    assert loop.counts["SHFL"] > 0 and per_element(loop, arguments) > 8.3 and compiled.registers > 120


def test_a_backward_of_more_registers_is_seen(launches: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the states at once are more than a thread can have: what is over goes to memory, and is counted."""
    monkeypatch.setattr(launch, "BACKWARD_UNROLL", 4)
    inputs = stage_inputs(1, 64, torch.float32)
    saved = torch.empty(backend.directional_saved_numel(inputs), device="meta")
    backend.directional_backward(torch.empty_like(inputs.u), inputs, saved, stage_strides(1))
    [(compiled, _, _)] = builds(launches, "scan_backward")
    assert not no_spills(compiled, allowed=8) and held(compiled) > MOST_REGISTERS + 2
