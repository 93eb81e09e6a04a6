"""Chains of operations around the scan that the Triton backend runs as one kernel each, as operators of torch.library.

Where that backend runs a scan (:func:`fuses`), the network calls these; elsewhere its own layers, which compute the
same. All have gradients. Imports dispatch, the scans' operators and, when they run, the kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..orders import Strides
from . import dispatch, exportable, triton
from .contract import DirectionalInputs, check_directional
from .differentiable import are_differentiated, gradients, is_transformed
from .functional import flatten_strides, needs_gradients
from .library import DIRECTIONAL, OPERATORS, TAGS, autocast

__all__ = ["depthwise_silu", "fuses", "interleave_add", "scan_norm_gate"]

_SCAN = f"{DIRECTIONAL}, Tensor order, SymInt[] strides, Tensor norm_weight, Tensor norm_bias, float epsilon"
for _schema in (
    "depthwise_silu(Tensor x, Tensor weight, Tensor bias) -> Tensor",
    "depthwise_silu_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias) -> (Tensor, Tensor, Tensor)",
    "interleave_add(Tensor residual, Tensor left, Tensor right) -> Tensor",
    "interleave_add_backward(Tensor grad, ScalarType left, ScalarType right) -> (Tensor, Tensor)",
    f"scan_norm_gate({_SCAN}, Tensor gate, bool save) -> (Tensor, Tensor, Tensor)",
    f"scan_norm_gate_backward(Tensor grad, {_SCAN}, Tensor gate, Tensor total, Tensor saved) -> "
    f"({', '.join(['Tensor'] * 11)})",
):
    OPERATORS.define(_schema, tags=TAGS)


def _runs_triton(device_type: str, backend: str | None) -> bool:
    return dispatch.resolve(device_type, backend) == "triton"


# What torch.compiler.assume_constant_result sets; calling it would import the compiler, and Triton, with this package.
_runs_triton._dynamo_marked_constant = True  # type: ignore[attr-defined]


def fuses(x: Tensor, backend: str | None = None, others: Iterable[Tensor] = ()) -> bool:
    """Whether the chains below run on ``x``: where the scan would take the Triton backend, but not in float64.

    A graph that is exported to run without this package keeps to PyTorch's own operators, unless the backend is named.
    So do ``torch.func`` and forward-mode derivatives of ``x`` and of what ``others`` go into the chain.

    Raises:
        BackendError: when the backend named cannot run here.
    """
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    exporting = torch.compiler.is_exporting() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
    if (exporting and backend is None) or not _runs_triton(x.device.type, backend):
        return False
    return not is_transformed([x]) and not is_transformed(others)


def depthwise_silu(x: Tensor, convolution: nn.Conv2d | nn.Conv3d) -> Tensor:
    """SiLU of a depthwise convolution with 3 pixels a side, zero padding and bias.

    Args:
        x: (batch, *spatial, E).
        convolution: E channels in and out, in as many groups.

    Returns:
        (batch, *spatial, E) contiguous.
    """
    assert convolution.bias is not None  # noqa: S101 the network's has one
    return cast(Tensor, torch.ops.medmamba.depthwise_silu(x, convolution.weight, convolution.bias))


def interleave_add(residual: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add two halves (.., C / 2), their channels taken in turn, to ``residual`` (.., C)."""
    return cast(Tensor, torch.ops.medmamba.interleave_add(residual, left, right))


def scan_norm_gate(
    inputs: DirectionalInputs, strides: Sequence[Strides] | None, norm: nn.LayerNorm, gate: Tensor
) -> Tensor:
    """layer_norm(directional scan) * silu(gate).

    Args:
        inputs: of the scan.
        strides: the order as strides, where it walks along the axes.
        norm: LayerNorm over the E channels, with weight and bias.
        gate: (batch, L, E).

    Returns:
        (batch, L, E) in gate's dtype.

    Raises:
        ConfigError: for shapes, dtypes or devices that do not fit.
    """
    check_directional(inputs)
    walk = flatten_strides(strides, inputs.order)
    save = needs_gradients((*inputs, norm.weight, norm.bias, gate))
    out = torch.ops.medmamba.scan_norm_gate(*inputs, walk, norm.weight, norm.bias, norm.eps, gate, save)
    return cast(Tensor, out[0])


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    from .kernels import fused

    return fused.convolve(x, weight, bias)


def _convolve_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from .kernels import fused

    return fused.convolve_backward(grad, x, weight, bias)


def _convolve_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _plain_convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    convolution = F.conv2d if weight.dim() == 4 else F.conv3d
    wide = x.float().movedim(-1, 1), weight.float(), bias.float()
    return F.silu(convolution(*wide, padding=1, groups=len(weight))).movedim(1, -1).to(x.dtype)


def _convolve_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if are_differentiated(grad):
        return tuple(gradients(_plain_convolve, ctx.saved_tensors, [grad]))
    return cast("tuple[Tensor, ...]", torch.ops.medmamba.depthwise_silu_backward(grad, *ctx.saved_tensors))


def _interleave(residual: Tensor, left: Tensor, right: Tensor) -> Tensor:
    from .kernels import fused

    return fused.interleaved(residual, left, right)


def _interleave_fake(residual: Tensor, left: Tensor, right: Tensor) -> Tensor:
    dtype = torch.promote_types(residual.dtype, torch.promote_types(left.dtype, right.dtype))
    return residual.new_empty(residual.shape, dtype=dtype)


def _interleave_backward(grad: Tensor, left: torch.dtype, right: torch.dtype) -> tuple[Tensor, Tensor]:
    from .kernels import fused

    return fused.interleaved_backward(grad, left, right)


def _interleave_backward_fake(grad: Tensor, left: torch.dtype, right: torch.dtype) -> tuple[Tensor, Tensor]:
    shape = (*grad.shape[:-1], grad.shape[-1] // 2)
    return grad.new_empty(shape, dtype=left), grad.new_empty(shape, dtype=right)


def _interleave_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.dtypes = tuple(tensor.dtype for tensor in inputs)


def _interleave_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    residual, left, right = ctx.dtypes
    if are_differentiated(grad):
        halves = grad.unflatten(-1, (-1, 2)).unbind(-1)
        return grad.to(residual), halves[0].to(left), halves[1].to(right)
    return (grad.to(residual), *torch.ops.medmamba.interleave_add_backward(grad, left, right))


def _scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, strides, weight, bias, epsilon, gate, save = arguments
    return triton.directional_gated(DirectionalInputs(*tensors), strides, (weight, bias, epsilon), gate, save)


def _scan_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, _, _, _, _, gate, save = arguments
    inputs = DirectionalInputs(*tensors)
    total = inputs.u.new_empty(inputs.u.shape if save else (0,), dtype=triton.part_dtype(inputs.u.dtype))
    saved = inputs.u.new_empty(triton.directional_saved_numel(inputs) if save else 0, dtype=torch.float32)
    return _like(gate), total, saved


def _scan_backward(*arguments: Any) -> tuple[Tensor, ...]:
    grad, *tensors, strides, weight, bias, epsilon, gate, total, saved = arguments
    inputs, norm = DirectionalInputs(*tensors), (weight, bias, epsilon)
    return tuple(triton.directional_gated_backward(grad, inputs, strides, norm, gate, total, saved))


def _scan_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    _, *tensors, _, _, weight, bias, _, gate, _, _ = arguments
    return tuple(_like(t) for t in (*tensors, weight, bias, gate))


def _scan_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, strides, weight, bias, epsilon, gate, _ = inputs
    ctx.strides, ctx.epsilon = strides, epsilon
    ctx.save_for_backward(*tensors, weight, bias, gate, *output[1:])


def _plain_scan(epsilon: float, *arguments: Tensor) -> Tensor:
    u, *tensors, weight, bias, gate = arguments
    y = exportable.directional_scan(u.float(), *tensors)
    return (F.layer_norm(y, weight.shape, weight.float(), bias.float(), epsilon) * F.silu(gate.float())).to(gate.dtype)


def _scan_vjp(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, weight, bias, gate, total, saved = ctx.saved_tensors
    if are_differentiated(grad):
        *found, g_weight, g_bias, g_gate = gradients(
            partial(_plain_scan, ctx.epsilon), [*tensors, weight, bias, gate], [grad]
        )
        return (*found, None, g_weight, g_bias, None, g_gate, None)
    grads = torch.ops.medmamba.scan_norm_gate_backward(
        grad, *tensors, ctx.strides, weight, bias, ctx.epsilon, gate, total, saved
    )
    return (*grads[:8], None, None, grads[8], grads[9], None, grads[10], None)


for _name, _function, _fake in (
    ("depthwise_silu", _convolve, lambda x, weight, bias: _like(x)),
    ("depthwise_silu_backward", _convolve_backward, lambda grad, *tensors: tuple(_like(t) for t in tensors)),
    ("interleave_add", _interleave, _interleave_fake),
    ("interleave_add_backward", _interleave_backward, _interleave_backward_fake),
    ("scan_norm_gate", _scan, _scan_fake),
    ("scan_norm_gate_backward", _scan_backward, _scan_backward_fake),
):
    OPERATORS.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"medmamba::{_name}", _fake, lib=OPERATORS)
for _name, _vjp, _context in (
    ("depthwise_silu", _convolve_vjp, _convolve_context),
    ("interleave_add", _interleave_vjp, _interleave_context),
    ("scan_norm_gate", _scan_vjp, _scan_context),
):
    torch.library.register_autograd(f"medmamba::{_name}", _vjp, setup_context=_context, lib=OPERATORS)
autocast("depthwise_silu", (0,))
autocast("scan_norm_gate", (0, 1, 3, 4, 13))
