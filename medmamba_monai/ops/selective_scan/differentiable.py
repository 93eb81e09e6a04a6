"""What kernels cannot do: derivatives of derivatives, forward-mode ones, and the transformations of torch.func.

An operator of torch.library with a rule for autograd takes part in none of them, and PyTorch's answers are errors that
name no cause or, worse, zeros. The forms in plain PyTorch operators take its place then. Imports errors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ...errors import BackendError
from .dispatch import ENVIRONMENT_VARIABLE

__all__ = ["gradients", "is_transformed", "needs_plain_operators"]


def is_transformed(tensors: Iterable[object]) -> bool:
    """Whether one of them is inside ``torch.func`` (vmap, grad, jvp, ..) or carries a forward-mode tangent."""
    return not torch.compiler.is_compiling() and any(isinstance(t, Tensor) and _is_transformed(t) for t in tensors)


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


def gradients(
    function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor | None], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """Gradients that can be differentiated again, for a backward pass with ``create_graph=True``.

    Args:
        function: made of differentiable operators.
        inputs: of the function; those that require no gradient get None.
        grads: of its outputs.
    """
    with torch.enable_grad(), torch.autocast(grads[0].device.type, enabled=False):
        outputs = function(*inputs)
        wanted = [t for t in inputs if t is not None and t.requires_grad]
        found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True))
    return [next(found) if t is not None and t.requires_grad else None for t in inputs]
