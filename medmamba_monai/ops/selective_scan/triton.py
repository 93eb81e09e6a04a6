"""Both scans as Triton kernels, forward and backward, on GPUs. Imports contract.py, portable.py and kernels/.

triton itself is imported when the backend first runs. The scan of sequences is the scan of maps with groups in
the place of directions and no index table; it copies its inputs to channels-last. float64 inputs take the
portable path, which keeps their precision.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from . import portable
from .contract import DirectionalInputs, ScanBackend, SequenceInputs
from .kernels.plan import from_blocks, make_plan, make_walks, to_blocks

if TYPE_CHECKING:
    from .kernels.launch import Problem

__all__ = [
    "READS_STRIDES",
    "directional_backward",
    "directional_forward",
    "directional_gated",
    "directional_gated_backward",
    "directional_saved_numel",
    "part_dtype",
    "self_test",
    "sequence_backward",
    "sequence_forward",
    "sequence_saved_numel",
    "unavailable",
]

READS_STRIDES = True  # library.py then gives it the order as strides where it has them
_INSTALL = "pip install 'medmamba_monai[triton]'"
_TOLERANCE = 2e-5  # of the self-test: a wrong kernel is wrong by far more
_TF32_TOLERANCE = 5e-3  # of what PyTorch's matrix product makes of the kernels' results, where TF32 is allowed


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def unavailable(device: torch.device) -> str | None:
    """Why this backend cannot run on ``device``; None when it can."""
    if importlib.util.find_spec("triton") is None:
        return f"the package triton is not installed; {_INSTALL}"
    if device.type not in ("cuda", "xpu") and not _interpreted():
        return f"it runs on GPUs (cuda, xpu), not on {device.type}"
    return None


def _rows(tensor: Tensor) -> Tensor:
    """A map whose last axis is contiguous, as the kernels need it."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _matrices(tensor: Tensor) -> Tensor:
    """B or C as the kernels read them fast: in float32, and every row of states at a multiple of 64 bytes.

    A copy costs less than the scan would lose: each of its warps reads these rows number by number otherwise.
    """
    tensor = _rows(tensor.float())
    aligned = all(n % 16 == 0 for n in (tensor.storage_offset(), *tensor.stride()[:-1]))
    return tensor if aligned else tensor.contiguous()


def part_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of step sizes and of a direction's part of a sum: float16 has too little range for them."""
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


def _without_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    """A backward pass may run where the caller's autocast is still on; its products are to stay as they are."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()


def _log2(A: Tensor) -> Tensor:
    """A (K, E, N) as the kernels take it, (K, N, E): they compute powers of two."""
    return (A.float() * math.log2(math.e)).transpose(1, 2).contiguous()


def directional_saved_numel(inputs: DirectionalInputs) -> int:
    """Count the numbers forward saves: a state every so many steps, padded."""
    if inputs.u.dtype == torch.float64:
        return portable.directional_saved_numel(inputs)
    batch, length, channels = inputs.u.shape
    slices = batch * inputs.order.shape[0]
    plan = make_plan(slices, length, channels, inputs.A.shape[2])
    return slices * plan.checkpoints * plan.state_numel


def _directional(inputs: DirectionalInputs, strides: Sequence[int]) -> Problem:
    from .kernels import launch

    directions = inputs.order.shape[0]
    walks = make_walks(strides, directions) if strides else None
    order = inputs.order.contiguous()
    weight, bias = inputs.dt_weight.contiguous(), inputs.dt_bias.contiguous()
    delta = launch.expand(_rows(inputs.dt), weight, bias, order, part_dtype(inputs.u.dtype))
    return launch.Problem(
        u=_rows(inputs.u).unsqueeze(2).expand(-1, -1, directions, -1),
        delta=delta,
        A=_log2(inputs.A),
        B=_matrices(inputs.B),
        C=_matrices(inputs.C),
        D=inputs.D.contiguous(),
        order=order if walks is None else None,
        walks=walks,
        initial=None,
        softplus=True,
    )


def directional_forward(inputs: DirectionalInputs, save: bool, strides: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """Forward of the backend protocol; ``strides`` say the same as the order and save reading it."""
    if inputs.u.dtype == torch.float64:
        return portable.directional_forward(inputs, save)
    from .kernels import launch

    problem = _directional(inputs, strides)
    parts = torch.empty_like(problem.delta)
    saved, _ = launch.forward(problem, parts.transpose(1, 2), save, last=False)
    return launch.merge(parts, inputs.u.dtype), saved


def directional_gated(
    inputs: DirectionalInputs,
    strides: Sequence[int],
    norm: tuple[Tensor, Tensor, float],
    gate: Tensor,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The scan, LayerNorm over channels and SiLU gate with two passes over memory less.

    Args:
        inputs: of the scan, not in float64.
        strides: the order as strides, or nothing.
        norm: weight (E,), bias (E,) and epsilon of the LayerNorm.
        gate: (batch, L, E).
        save: whether to return what backward needs.

    Returns:
        layer_norm(directional scan) * silu(gate), (batch, L, E) in gate's dtype, the scan's result before the norm, and
        its saved states; the two are empty unless ``save``.
    """
    from .kernels import fused, launch

    problem = _directional(inputs, strides)
    parts = torch.empty_like(problem.delta)
    saved, _ = launch.forward(problem, parts.transpose(1, 2), save, last=False)
    out, total = fused.gated(parts, *norm, gate, save)
    return out, total, saved


def directional_gated_backward(
    grad: Tensor,
    inputs: DirectionalInputs,
    strides: Sequence[int],
    norm: tuple[Tensor, Tensor, float],
    gate: Tensor,
    total: Tensor,
    saved: Tensor,
) -> list[Tensor]:
    """Gradients of the scan's eight tensors, of the norm's weight and bias, and of the gate."""
    from .kernels import fused

    d_total, d_weight, d_bias, d_gate = fused.gated_backward(grad, total, *norm, gate)
    d_norm = [d_weight.to(norm[0].dtype), d_bias.to(norm[1].dtype)]
    return [*directional_backward(d_total, inputs, saved, strides), *d_norm, d_gate]


def directional_backward(
    grad: Tensor, inputs: DirectionalInputs, saved: Tensor, strides: Sequence[int] = ()
) -> list[Tensor]:
    """Backward of the backend protocol."""
    if inputs.u.dtype == torch.float64:
        return portable.directional_backward(grad, inputs, saved)
    from .kernels import launch

    problem = _directional(inputs, strides)
    by_direction = _rows(grad).unsqueeze(2).expand_as(problem.u)
    dtype = problem.delta.dtype
    d = launch.backward(problem, by_direction, None, saved.contiguous(), dtype)
    assert d.D is not None  # noqa: S101 it is None only where D is
    with _without_autocast(grad.device.type):
        d_dt = d.delta @ inputs.dt_weight.to(dtype)
        d_weight = d.delta.transpose(2, 3) @ inputs.dt.transpose(1, 2).to(dtype)
    grads = [
        launch.merge(d.u, inputs.u.dtype),
        d_dt.transpose(1, 2),
        d.A.transpose(1, 2),
        d.B,
        d.C,
        d.D,
        d_weight.float().sum(0),
        d.bias,
    ]
    return [g.to(t.dtype).contiguous() for g, t in zip(grads, inputs[:-1], strict=True)]


def sequence_saved_numel(inputs: SequenceInputs) -> int:
    """Count the numbers forward saves: a state every so many steps, padded."""
    if inputs.u.dtype == torch.float64:
        return portable.sequence_saved_numel(inputs)
    batch, channels, length = inputs.u.shape
    groups = inputs.B.shape[1]
    plan = make_plan(batch * groups, length, channels // groups, inputs.A.shape[1])
    return batch * groups * plan.checkpoints * plan.state_numel


def _by_group(tensor: Tensor, groups: int) -> Tensor:
    """(batch, E, L) -> (batch, L, G, E / G), contiguous."""
    batch, channels, length = tensor.shape
    return tensor.transpose(1, 2).contiguous().view(batch, length, groups, channels // groups)


def _sequence(inputs: SequenceInputs) -> Problem:
    from .kernels import launch

    batch, channels, length = inputs.u.shape
    groups, states = inputs.B.shape[1:3]
    plan = make_plan(batch * groups, length, channels // groups, states)
    delta = inputs.delta.float()
    if inputs.delta_bias is not None:
        delta = delta + inputs.delta_bias.float()[:, None]
    if inputs.softplus:
        delta = F.softplus(delta)
    initial = inputs.initial_state
    if initial is not None:
        initial = to_blocks(initial.reshape(batch, groups, -1, states), plan)
    return launch.Problem(
        u=_by_group(inputs.u, groups),
        delta=delta.view(batch, groups, -1, length).transpose(2, 3).contiguous(),
        A=_log2(inputs.A.reshape(groups, -1, states)),
        B=inputs.B.permute(0, 3, 1, 2).float().contiguous(),
        C=inputs.C.permute(0, 3, 1, 2).float().contiguous(),
        D=None if inputs.D is None else inputs.D.contiguous(),
        order=None,
        walks=None,
        initial=initial,
        softplus=inputs.softplus,
    )


def sequence_forward(inputs: SequenceInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Forward of the backend protocol."""
    if inputs.u.dtype == torch.float64:
        return portable.sequence_forward(inputs, save)
    from .kernels import launch

    problem = _sequence(inputs)
    y = torch.empty_like(problem.u)
    saved, last = launch.forward(problem, y, save, last=True)
    assert last is not None  # noqa: S101 asked for
    batch, channels, length = inputs.u.shape
    states = inputs.A.shape[1]
    state = from_blocks(last, problem.plan, problem.u.shape[-1], states).reshape(batch, channels, states)
    return y.view(batch, length, channels).transpose(1, 2).contiguous(), state.contiguous(), saved


def sequence_backward(grad: Tensor, grad_last: Tensor, inputs: SequenceInputs, saved: Tensor) -> list[Tensor | None]:
    """Backward of the backend protocol."""
    if inputs.u.dtype == torch.float64:
        return portable.sequence_backward(grad, grad_last, inputs, saved)
    from .kernels import launch

    problem = _sequence(inputs)
    plan = problem.plan
    batch, _, _, channels = problem.u.shape
    groups, states = inputs.B.shape[1:3]
    ends = to_blocks(grad_last.reshape(batch, groups, channels, states), plan)
    d = launch.backward(problem, _by_group(grad, groups), ends, saved.contiguous(), torch.float32)
    d_initial = None if d.initial is None else from_blocks(d.initial, plan, channels, states)
    grads = (
        d.u.transpose(2, 3),
        d.delta.transpose(2, 3),
        d.A.transpose(1, 2),
        d.B.permute(0, 2, 3, 1),
        d.C.permute(0, 2, 3, 1),
        d.D,
        d.bias,
        d_initial,
    )
    return [
        None if g is None or t is None else g.reshape(t.shape).to(t.dtype).contiguous()
        for g, t in zip(grads, inputs[:-1], strict=True)
    ]


def self_test() -> str | None:
    """Compare the kernels with the reference on small problems, on the device they are for.

    Returns:
        None when they agree, else what differs or why they do not run: they must not be used then.
    """
    from triton.errors import TritonError

    device, length = torch.device("cpu"), 5  # in the interpreter
    for kind in ("cuda", "xpu"):
        if not _interpreted() and getattr(torch, kind).is_available():
            device, length = torch.device(kind), 300  # in spans, with several states saved
    try:
        wrong = _wrong(device, length)
    except (TritonError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        # triton compiles kernels at first use, and calls a C compiler to launch them
        return f"its kernels do not run on this machine: {type(error).__name__}: {error}"
    return wrong and f"its kernels are wrong on this machine: {wrong}"


def _wrong(device: torch.device, length: int) -> str | None:
    """What differs from the reference by more than rounding, with full and ragged programs; None when nothing does."""
    from . import selftest

    this, bounds = cast(ScanBackend, sys.modules[__name__]), selftest.Bounds(_TOLERANCE, products=_TF32_TOLERANCE)
    forth = torch.arange(length)
    order = torch.stack([forth, (forth * 3 + 1) % length if length % 3 else forth.flip(0)])
    wrong = selftest.wrong_on_maps(this, selftest.map_problem(order, channels=40, states=16, rank=3), bounds, device)
    sequence = selftest.sequence_problem(length, channels=80, states=5)
    return wrong or selftest.wrong_on_sequences(this, sequence, bounds, device)
