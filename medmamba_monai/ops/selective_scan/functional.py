"""The two scans users call. Imports the contract, the dispatcher and the operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ..orders import Strides
from . import exportable, library  # noqa: F401  (importing it registers the operators)
from .contract import DirectionalInputs, SequenceInputs, check_directional, check_sequence
from .differentiable import needs_plain_operators

__all__ = ["directional_scan", "flatten_strides", "needs_gradients", "selective_scan"]


def needs_gradients(tensors: tuple[Tensor | bool | None, ...]) -> bool:
    """Whether a backward pass may follow, for which the scan saves states."""
    return torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in tensors)


def flatten_strides(strides: Sequence[Strides] | None, order: Tensor) -> list[int]:
    """Directions as the operators take them: start, sizes and steps of each, over two or three axes; or nothing.

    Raises:
        ConfigError: when they cannot be those of ``order``.
    """
    if not strides:
        return []
    axes = {len(direction.sizes) for direction in strides} | {len(direction.steps) for direction in strides}
    if len(strides) != order.shape[0] or len(axes) != 1 or max(axes) not in (2, 3):
        raise ConfigError(
            f"{len(strides)} directions over {sorted(axes)} axes", where="selective scan, strides",
            remedy=f"give the {order.shape[0]} directions of order, all over 2 or all over 3 axes",
        )  # fmt: skip
    for direction in strides:
        if math.prod(direction.sizes) != order.shape[1]:
            raise ConfigError(
                f"a direction of {direction.sizes} steps over {order.shape[1]} pixels", where="selective scan, strides"
            )
    return [number for d in strides for number in (d.start, *d.sizes, *d.steps)]


def directional_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    order: Tensor,
    backend: str | None = None,
    strides: Sequence[Strides] | None = None,
) -> Tensor:
    """Scan a channels-last map along several pixel orders at once and sum the results.

    The formulas are in :class:`~medmamba_monai.ops.selective_scan.contract.DirectionalInputs`.

    Args:
        u: (batch, L, E) pixels in storage order.
        dt: (batch, L, K, R) low-rank step sizes of each direction.
        A: (K, E, N) real, negative.
        B: (batch, L, K, N).
        C: (batch, L, K, N).
        D: (K, E).
        dt_weight: (K, E, R).
        dt_bias: (K, E).
        order: (K, L) int64 pixel orders, see :func:`medmamba_monai.ops.orders.index_table`.
        backend: a name of :data:`~.dispatch.BACKENDS`; None takes the first that can run.
        strides: the same orders as strides, where they walk along the axes (:func:`medmamba_monai.ops.orders.strides`).
            A backend that can compute pixels from them then reads no table.

    Returns:
        y (batch, L, E) in u's dtype; the state is kept in float32 (float64 for float64 inputs).

    Raises:
        ConfigError: for shapes, dtypes or devices that do not fit.
        BackendError: when the backend named cannot run here, or inside ``torch.func`` and forward-mode derivatives,
            where no backend may be named.

    Example:
        >>> from medmamba_monai.ops import index_table
        >>> order = index_table("cross", (4, 5))
        >>> y = directional_scan(
        ...     torch.ones(1, 20, 8), torch.zeros(1, 20, 4, 2), -torch.ones(4, 8, 3), torch.ones(1, 20, 4, 3),
        ...     torch.ones(1, 20, 4, 3), torch.ones(4, 8), torch.ones(4, 8, 2), torch.zeros(4, 8), order)
        >>> y.shape
        torch.Size([1, 20, 8])
    """
    inputs = DirectionalInputs(u, dt, A, B, C, D, dt_weight, dt_bias, order)
    check_directional(inputs)
    if needs_plain_operators(inputs, backend):
        with torch.autocast(u.device.type, enabled=False):
            return exportable.directional_scan(*inputs)
    walk = flatten_strides(strides, order)
    return torch.ops.medmamba.directional_scan(*inputs, walk, backend or "", needs_gradients(inputs))[0]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    initial_state: Tensor | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan sequences as Mamba-1 does; arguments mean what they mean in ``mamba_ssm``'s ``selective_scan_fn``.

    Args:
        u: (batch, E, L).
        delta: (batch, E, L) step sizes.
        A: (E, N) real.
        B: (E, N), (batch, N, L) or (batch, G, N, L).
        C: like B.
        D: (E,) skip connection.
        z: (batch, E, L); the output is multiplied by SiLU(z).
        delta_bias: (E,) added to delta first.
        delta_softplus: pass delta through softplus.
        return_last_state: also return the state after the last step, (batch, E, N) float32.
        initial_state: (batch, E, N), zero by default.
        backend: a name of :data:`~.dispatch.BACKENDS`; None takes the first that can run.

    Returns:
        y (batch, E, L) in u's dtype, with the last state where asked for.

    Raises:
        ConfigError: for shapes, dtypes or devices that do not fit.
        BackendError: when the backend named cannot run here, or inside ``torch.func`` and forward-mode derivatives,
            where no backend may be named.

    Example:
        >>> u, delta = torch.ones(2, 8, 10), torch.full((2, 8, 10), 0.1)
        >>> B = C = torch.ones(2, 3, 10)
        >>> y, last = selective_scan(u, delta, -torch.ones(8, 3), B, C, return_last_state=True)
        >>> y.shape, last.shape
        (torch.Size([2, 8, 10]), torch.Size([2, 8, 3]))
    """
    inputs = SequenceInputs(u, delta, A, _grouped(B, u), _grouped(C, u), D, delta_bias, initial_state, delta_softplus)
    check_sequence(inputs)
    if needs_plain_operators(inputs, backend):
        with torch.autocast(u.device.type, enabled=False):
            y, last = exportable.selective_scan(*inputs)
    else:
        y, last, _ = torch.ops.medmamba.selective_scan(*inputs, backend or "", needs_gradients(inputs))
    if z is not None:
        y = y * F.silu(z)
    return (y, last) if return_last_state else y


def _grouped(matrix: Tensor, u: Tensor) -> Tensor:
    """Bring B or C to (batch, G, N, L); a constant (E, N) becomes a group for every channel."""
    if matrix.dim() == 2:
        return matrix[None, :, :, None].expand(u.shape[0], -1, -1, u.shape[-1])
    return matrix.unsqueeze(1) if matrix.dim() == 3 else matrix
