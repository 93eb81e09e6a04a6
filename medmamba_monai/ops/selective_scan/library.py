"""The scans as operators of torch.library, so that autograd, autocast, torch.compile and torch.export know them.

One functional operator pair a scan, whatever the backend: its name is an argument. Imports contract, dispatch and
what differentiates again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import differentiable, dispatch, exportable
from .contract import DirectionalInputs, ScanBackend, SequenceInputs

__all__ = ["DIRECTIONAL", "OPERATORS", "TAGS", "autocast", "state_dtype"]

OPERATORS = torch.library.Library("medmamba", "DEF")
TAGS = (torch.Tag.pt2_compliant_tag,)

DIRECTIONAL = "Tensor u, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, Tensor dt_weight, Tensor dt_bias"
_SEQUENCE = "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? delta_bias, Tensor? initial_state"
OPERATORS.define(
    f"directional_scan({DIRECTIONAL}, Tensor order, SymInt[] strides, str backend, bool save) -> (Tensor, Tensor)",
    tags=TAGS,
)
OPERATORS.define(
    f"directional_scan_backward(Tensor grad, {DIRECTIONAL}, Tensor order, SymInt[] strides, Tensor saved, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=TAGS,
)
OPERATORS.define(
    f"selective_scan({_SEQUENCE}, bool softplus, str backend, bool save) -> (Tensor, Tensor, Tensor)",
    tags=TAGS,
)
OPERATORS.define(
    f"selective_scan_backward(Tensor grad, Tensor grad_last, {_SEQUENCE}, Tensor saved, bool softplus,"
    " str backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=TAGS,
)


def _module(tensor: Tensor, backend: str) -> ScanBackend:
    """The backend's module; resolved here and not by the caller, where torch.compile would trace into it."""
    return dispatch.load(dispatch.resolve(tensor.device.type, backend or None))


def _options(module: ScanBackend, strides: Sequence[int]) -> dict[str, Sequence[int]]:
    """Strides for the backend that reads them; the others go by the order, which says the same."""
    return {"strides": strides} if strides and getattr(module, "READS_STRIDES", False) else {}


def _directional(*arguments: Any) -> tuple[Tensor, Tensor]:
    *tensors, strides, backend, save = arguments
    module = _module(tensors[0], backend)
    y, saved = module.directional_forward(DirectionalInputs(*tensors), save, **_options(module, strides))
    return y, saved


def _directional_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    *tensors, _, backend, save = arguments
    inputs = DirectionalInputs(*tensors)
    numel = _module(inputs.u, backend).directional_saved_numel(inputs) if save else 0
    y = torch.empty_like(inputs.u, memory_format=torch.contiguous_format)
    return y, inputs.u.new_empty(numel, dtype=state_dtype(inputs.u))


def _directional_backward(*arguments: Any) -> tuple[Tensor, ...]:
    grad, *tensors, strides, saved, backend = arguments
    module, inputs = _module(grad, backend), DirectionalInputs(*tensors)
    return tuple(module.directional_backward(grad, inputs, saved, **_options(module, strides)))


def _directional_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in arguments[1:9])


def _sequence(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, softplus, backend, save = arguments
    inputs = SequenceInputs._make((*tensors, softplus))
    return _module(inputs.u, backend).sequence_forward(inputs, save)


def _sequence_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, softplus, backend, save = arguments
    inputs = SequenceInputs._make((*tensors, softplus))
    numel = _module(inputs.u, backend).sequence_saved_numel(inputs) if save else 0
    dtype = state_dtype(inputs.u)
    y = torch.empty_like(inputs.u, memory_format=torch.contiguous_format)
    last = inputs.u.new_empty(*inputs.u.shape[:2], inputs.A.shape[1], dtype=dtype)
    return y, last, inputs.u.new_empty(numel, dtype=dtype)


def _sequence_backward(*arguments: Any) -> tuple[Tensor, ...]:
    grad, grad_last, *tensors, saved, softplus, backend = arguments
    inputs = SequenceInputs._make((*tensors, softplus))
    grads = _module(grad, backend).sequence_backward(grad, grad_last, inputs, saved)
    return tuple(grad.new_empty(0) if g is None else g for g in grads)  # a schema has no optional results


def _sequence_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    grad, tensors = arguments[0], arguments[2:10]
    contiguous = torch.contiguous_format
    return tuple(grad.new_empty(0) if t is None else torch.empty_like(t, memory_format=contiguous) for t in tensors)


def state_dtype(u: Tensor) -> torch.dtype:
    """Dtype of states for inputs like ``u``."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def _directional_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:9], output[1])
    ctx.strides, ctx.backend = inputs[9], inputs[10]


def _directional_vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, saved = ctx.saved_tensors
    if differentiable.are_differentiated(grad):
        return (*differentiable.gradients(exportable.directional_scan, tensors, [grad]), None, None, None)
    grads = torch.ops.medmamba.directional_scan_backward(grad, *tensors, ctx.strides, saved, ctx.backend)
    return (*grads, None, None, None, None)


def _sequence_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:8], output[2])
    ctx.softplus, ctx.backend = inputs[8], inputs[9]


def _sequence_vjp(ctx: Any, grad: Tensor, grad_last: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, saved = ctx.saved_tensors
    if differentiable.are_differentiated(grad, grad_last):
        function = partial(exportable.selective_scan, softplus=ctx.softplus)
        return (*differentiable.gradients(function, tensors, [grad, grad_last]), None, None, None)
    grads = torch.ops.medmamba.selective_scan_backward(grad, grad_last, *tensors, saved, ctx.softplus, ctx.backend)
    present = [None if t is None else g for t, g in zip(tensors, grads, strict=True)]
    return (*present, None, None, None)


def autocast(operator: str, activations: tuple[int, ...]) -> None:
    """Under autocast, activations go down to its dtype and parameters up to float32, as the state needs them."""
    _autocast(operator, activations, torch._C.DispatchKey.AutocastCPU, "cpu")
    _autocast(operator, activations, torch._C.DispatchKey.AutocastCUDA, "cuda")


def _autocast(operator: str, activations: tuple[int, ...], keyset: torch._C.DispatchKey, device: str) -> None:
    def rule(*arguments: Any) -> Any:
        dtype = torch.get_autocast_dtype(device)
        cast = [
            a if not isinstance(a, Tensor) or a.dtype in (torch.float64, torch.int64)
            else a.to(dtype if i in activations else torch.float32)
            for i, a in enumerate(arguments)
        ]  # fmt: skip
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(keyset)):
            return getattr(torch.ops.medmamba, operator)(*cast)

    OPERATORS.impl(operator, rule, f"Autocast{device.upper()}")


for _name, _function, _fake in (
    ("directional_scan", _directional, _directional_fake),
    ("directional_scan_backward", _directional_backward, _directional_backward_fake),
    ("selective_scan", _sequence, _sequence_fake),
    ("selective_scan_backward", _sequence_backward, _sequence_backward_fake),
):
    OPERATORS.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"medmamba::{_name}", _fake, lib=OPERATORS)
torch.library.register_autograd(
    "medmamba::directional_scan", _directional_vjp, setup_context=_directional_context, lib=OPERATORS
)
torch.library.register_autograd(
    "medmamba::selective_scan", _sequence_vjp, setup_context=_sequence_context, lib=OPERATORS
)
autocast("directional_scan", (0, 1, 3, 4))
autocast("selective_scan", (0, 1, 3, 4))
