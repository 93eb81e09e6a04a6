"""What kernels cannot do: derivatives of derivatives, forward-mode ones, and the transformations of torch.func.

An operator of torch.library with a rule for autograd takes part in none of them, and PyTorch's answers are errors that
name no cause or, worse, zeros. The forms in plain PyTorch operators take its place then. Imports errors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ...errors import BackendError
from .dispatch import ENVIRONMENT_VARIABLE

__all__ = ["are_differentiated", "gradients", "inside_transformation", "is_transformed", "needs_plain_operators"]


def inside_transformation() -> bool:
    """Whether ``torch.func`` (vmap, grad, jvp, ..) or a level of forward-mode derivatives is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


# What torch.compiler.assume_constant_result sets; calling it would import the compiler with this package.
inside_transformation._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_transformed(tensors: Iterable[object]) -> bool:
    """Whether one of them is wrapped by ``torch.func`` or carries a tangent; while compiling, whether any may."""
    if not inside_transformation():
        return False
    return torch.compiler.is_compiling() or any(isinstance(t, Tensor) and _is_transformed(t) for t in tensors)


def _is_transformed(tensor: Tensor) -> bool:
    wrapped: bool = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return wrapped or forward_ad.unpack_dual(tensor).tangent is not None


def needs_plain_operators(inputs: Iterable[object], backend: str | None = None) -> bool:
    """Whether no kernel can take these inputs, because one of them is transformed.

    Raises:
        BackendError: when it is, and a backend has been named.
    """
    if not is_transformed(inputs):
        return False
    name = backend or os.environ.get(ENVIRONMENT_VARIABLE)
    if name:
        raise BackendError(
            f"scan backend {name!r} knows neither torch.func nor forward-mode derivatives",
            remedy=f"name no backend (nor in {ENVIRONMENT_VARIABLE}): plain PyTorch operators are taken then",
        )
    return True


def are_differentiated(*grads: Tensor) -> bool:
    """Whether the gradients that a backward pass makes of these are differentiated themselves (create_graph=True)."""
    return torch.is_grad_enabled() or is_transformed(grads)


def gradients(
    function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor | None], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """Gradients that can be differentiated again.

    Args:
        function: made of differentiable operators.
        inputs: of the function; those that require no gradient get None.
        grads: of its outputs.
    """
    needed = [i for i, t in enumerate(inputs) if t is not None and t.requires_grad]

    def outputs_of(*wanted: Tensor) -> tuple[Tensor, ...]:
        given = list(inputs)
        for i, tensor in zip(needed, wanted, strict=True):
            given[i] = tensor
        outputs = function(*given)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    wanted = [cast(Tensor, inputs[i]) for i in needed]
    with torch.autocast(grads[0].device.type, enabled=False):
        if is_transformed(grads):
            found = torch.func.vjp(outputs_of, *wanted)[1](tuple(grads))
        else:
            with torch.enable_grad():
                # views: where an input was made from another, its gradient is not to reach that one here as well
                views = [t.view_as(t) for t in wanted]
                pairs = [(y, g) for y, g in zip(outputs_of(*views), grads, strict=True) if y.requires_grad]
                found = torch.autograd.grad([y for y, _ in pairs], views, [g for _, g in pairs], create_graph=True)
    known = dict(zip(needed, found, strict=True))
    return [known.get(i) for i in range(len(inputs))]
