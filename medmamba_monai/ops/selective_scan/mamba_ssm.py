"""Both scans by ``mamba_ssm``'s CUDA kernel, for comparison; never chosen unless named. Imports contract.py and errors.

The kernel knows sequences only: a map is copied once for each direction, as the released networks do. It is
reached through ``selective_scan_fn``, the one entry its authors keep stable, and is imported only when asked for.
float64 inputs take the portable path.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import BackendError
from . import portable
from .contract import DirectionalInputs, ScanBackend, SequenceInputs

__all__ = [
    "directional_backward",
    "directional_forward",
    "directional_saved_numel",
    "self_test",
    "sequence_backward",
    "sequence_forward",
    "sequence_saved_numel",
    "sequence_scan",
    "unavailable",
]

_DEVICE = "cuda"
_TOLERANCE = 1e-4  # of the self-test: the package compiles its kernel with less exact exponentials and logarithms
_MODULE = "mamba_ssm.ops.selective_scan_interface"
_REMEDY = (
    "with nvcc and a CUDA build of torch at hand, `pip install mamba-ssm --no-build-isolation` compiles it; "
    "from its main branch only with MAMBA_KEEP_CUDA_BUILD=TRUE set"
)


def unavailable(device: torch.device) -> str | None:
    """Why this backend cannot run on ``device``; None when it can."""
    if device.type != "cuda":
        return f"its kernel runs on CUDA GPUs, not on {device.type}"
    try:
        module = importlib.import_module(_MODULE)
    except ModuleNotFoundError as error:
        if error.name == "mamba_ssm":
            return f"the package mamba-ssm is not installed; {_REMEDY}"
        return (
            f"the package mamba-ssm needs the module {error.name}, which is not installed; `pip install {error.name}`"
        )
    except (ImportError, OSError, RuntimeError, AttributeError, TypeError, ValueError) as error:
        return f"the package mamba-ssm cannot be imported ({error}); {_REMEDY}"
    if not hasattr(module, "selective_scan_fn"):
        return f"{_MODULE} has no selective_scan_fn; install mamba-ssm 1.2 or newer"
    if getattr(module, "selective_scan_cuda", module) is None:
        return f"this build of mamba-ssm lacks its CUDA kernel; {_REMEDY}"
    return None  # where else a release hides its kernel is its own affair: the self-test runs it


def self_test() -> str | None:
    """Compare the package's kernel with the reference on a small problem, on the GPU.

    Returns:
        None when they agree, else what differs or why it does not run: it must not be used then.
    """
    from . import selftest

    this, bounds = cast(ScanBackend, sys.modules[__name__]), selftest.Bounds(_TOLERANCE, _TOLERANCE)
    inputs = selftest.sequence_problem(length=70, channels=6, states=5)._replace(initial_state=None)
    try:
        wrong = selftest.wrong_on_sequences(this, inputs, bounds, torch.device(_DEVICE))
    except (ImportError, OSError, RuntimeError, AssertionError, AttributeError, TypeError, NameError) as error:
        return f"this build of mamba-ssm cannot run its CUDA kernel ({type(error).__name__}: {error}); {_REMEDY}"
    return wrong and f"the kernel of mamba-ssm is wrong on this machine: {wrong}"


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, **options: Any) -> Any:
    """Call the kernel as it wants its arguments: parameters in float32, the others in u's dtype, steps contiguous."""
    function = importlib.import_module(_MODULE).selective_scan_fn
    maps = [t.to(u.dtype).contiguous() for t in (u, delta)]
    matrices = [t.to(u.dtype).contiguous() for t in (B, C)]
    for name in ("D", "delta_bias"):
        if options[name] is not None:
            options[name] = options[name].float().contiguous()
    return function(*maps, A.float().contiguous(), *matrices, **options)


def _in_order(tensor: Tensor, order: Tensor) -> Tensor:
    """Visit pixels: (batch, L, K, X) -> (batch, K, X, L)."""
    batch, _, _, width = tensor.shape
    index = order[None, :, None, :].expand(batch, -1, width, -1)
    return tensor.permute(0, 2, 3, 1).gather(3, index)


def _directional(inputs: DirectionalInputs) -> Tensor:
    """The directional scan, differentiable by autograd."""
    u, dt, A, B, C, D, weight, bias, order = inputs
    batch, length, channels = u.shape
    directions = order.shape[0]
    delta = weight.to(dt.dtype) @ _in_order(dt, order)
    y = _scan(
        _in_order(u[:, :, None].expand(-1, -1, directions, -1), order).reshape(batch, -1, length),
        delta.reshape(batch, -1, length),
        A.flatten(0, 1),
        _in_order(B, order),
        _in_order(C, order),
        D=D.flatten(),
        delta_bias=bias.flatten(),
        delta_softplus=True,
    )
    back = order.argsort(1)[None, :, None, :].expand(batch, -1, channels, -1)
    total = y.view(batch, directions, channels, length).gather(3, back).float().sum(1)
    return total.transpose(1, 2).to(u.dtype).contiguous()


def directional_saved_numel(inputs: DirectionalInputs) -> int:
    """Return 0: backward starts again from the inputs."""
    return portable.directional_saved_numel(inputs) if inputs.u.dtype == torch.float64 else 0


def sequence_saved_numel(inputs: SequenceInputs) -> int:
    """Return 0: backward starts again from the inputs."""
    return portable.sequence_saved_numel(inputs) if inputs.u.dtype == torch.float64 else 0


def _nothing(like: Tensor) -> Tensor:
    return like.new_empty(0, dtype=torch.float32)


def directional_forward(inputs: DirectionalInputs, save: bool) -> tuple[Tensor, Tensor]:
    """Forward of the backend protocol; nothing is saved."""
    if inputs.u.dtype == torch.float64:
        return portable.directional_forward(inputs, save)
    return _directional(inputs), _nothing(inputs.u)


def directional_backward(grad: Tensor, inputs: DirectionalInputs, saved: Tensor) -> list[Tensor]:
    """Differentiate the scan again with autograd."""
    if inputs.u.dtype == torch.float64:
        return portable.directional_backward(grad, inputs, saved)
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in inputs[:-1]]
        y = _directional(DirectionalInputs(*[*leaves, inputs.order]))
    return [g.contiguous() for g in torch.autograd.grad(y, leaves, grad.to(y.dtype))]


def sequence_scan(inputs: SequenceInputs) -> tuple[Tensor, Tensor]:
    """The kernel's output and last state, differentiable by the package's own backward.

    Raises:
        BackendError: for an initial state, which the kernel does not take.
    """
    if inputs.initial_state is not None:
        raise BackendError(
            "scan backend 'mamba_ssm' takes no initial_state", remedy="use another backend, or start from zero"
        )
    u, delta, A, B, C, D, bias, _, softplus = inputs
    y, last = _scan(
        u, delta, A, B, C, D=D, delta_bias=bias, delta_softplus=softplus, return_last_state=True
    )  # fmt: skip
    return y, last.float()


def sequence_forward(inputs: SequenceInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Forward of the backend protocol; nothing is saved.

    Raises:
        BackendError: for an initial state, which the kernel does not take.
    """
    if inputs.u.dtype == torch.float64:
        return portable.sequence_forward(inputs, save)
    y, last = sequence_scan(inputs)
    return y.contiguous(), last.contiguous(), _nothing(inputs.u)


def sequence_backward(grad: Tensor, grad_last: Tensor, inputs: SequenceInputs, saved: Tensor) -> list[Tensor | None]:
    """Differentiate the scan again with autograd.

    Raises:
        BackendError: for a gradient of the last state, which the kernel does not carry on.
    """
    if inputs.u.dtype == torch.float64:
        return portable.sequence_backward(grad, grad_last, inputs, saved)
    if bool(grad_last.any()):
        raise BackendError("scan backend 'mamba_ssm' has no gradient of the last state", remedy="use another backend")
    with torch.enable_grad():
        leaves = [None if t is None else t.detach().requires_grad_() for t in inputs[:-1]]
        y, _ = sequence_scan(SequenceInputs(*[*leaves, inputs.softplus]))  # type: ignore[arg-type]
    present = [leaf for leaf in leaves if leaf is not None]
    grads = iter(torch.autograd.grad(y, present, grad.to(y.dtype)))
    return [None if leaf is None else next(grads).contiguous() for leaf in leaves]
