"""What a scan backend is given and must return; every check of the arguments. Imports torch and errors only."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ...errors import ConfigError

__all__ = ["DirectionalInputs", "ScanBackend", "SequenceInputs", "check_directional", "check_sequence"]


class DirectionalInputs(NamedTuple):
    r"""Arguments of the directional scan over a channels-last map of ``L`` pixels.

    Direction ``k`` visits pixel ``p = order[k, t]`` at step ``t``. With
    :math:`\Delta_p = \mathrm{softplus}(W_k\,dt_p + b_k)` the state and the output are

    .. math::
        h_t = \exp(\Delta_p A_k)\, h_{t-1} + \Delta_p B_p u_p, \qquad
        y_p = \sum_k \left(C_p \cdot h_t + D_k u_p\right)

    (Mamba, arXiv 2312.00752, eq. 2-4 with its simplified Euler rule for B; directions: VMamba, arXiv 2401.10166).
    Nothing is permuted in memory: every tensor is indexed by pixel.

    Attributes:
        u: (batch, L, E) input; E channels.
        dt: (batch, L, K, R) low-rank step sizes, one set for each of K directions.
        A: (K, E, N) state matrix, real and negative, float32 (float64 in the reference).
        B: (batch, L, K, N) input matrix.
        C: (batch, L, K, N) output matrix.
        D: (K, E) skip connection.
        dt_weight: (K, E, R) expands the step sizes to channels.
        dt_bias: (K, E) added before softplus.
        order: (K, L) int64, each row a permutation of 0..L-1.
    """

    u: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    dt_weight: Tensor
    dt_bias: Tensor
    order: Tensor


class SequenceInputs(NamedTuple):
    r"""Arguments of the plain selective scan, laid out and meant as in ``mamba_ssm``'s ``selective_scan_fn``.

    Attributes:
        u: (batch, E, L) input.
        delta: (batch, E, L) step sizes, before bias and softplus.
        A: (E, N) real state matrix.
        B: (batch, G, N, L) input matrix, shared by the E/G channels of a group.
        C: (batch, G, N, L) output matrix.
        D: (E,) skip connection, or None.
        delta_bias: (E,) added to delta, or None.
        initial_state: (batch, E, N), or None for zeros.
        softplus: whether delta passes through softplus.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    softplus: bool


class ScanBackend(Protocol):
    """A module that computes the scans.

    ``saved`` is what forward wants back in backward: one axis, float32 (float64 for float64 inputs), maybe empty.
    """

    def unavailable(self, device: torch.device) -> str | None:
        """Why this backend cannot run on ``device``; None when it can."""

    def directional_saved_numel(self, inputs: DirectionalInputs) -> int:
        """Number of elements forward saves, from shapes alone (the tensors may be fake)."""

    def sequence_saved_numel(self, inputs: SequenceInputs) -> int:
        """Number of elements forward saves, from shapes alone (the tensors may be fake)."""

    def directional_forward(self, inputs: DirectionalInputs, save: bool) -> tuple[Tensor, Tensor]:
        """Return y (batch, L, E) in u's dtype and the saved tensor, flat (empty unless ``save``)."""

    def directional_backward(self, grad: Tensor, inputs: DirectionalInputs, saved: Tensor) -> list[Tensor]:
        """Gradients of u, dt, A, B, C, D, dt_weight, dt_bias, each shaped and typed as its tensor."""

    def sequence_forward(self, inputs: SequenceInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return y (batch, E, L) in u's dtype, the last state (batch, E, N) in float32, and the saved tensor."""

    def sequence_backward(
        self, grad: Tensor, grad_last: Tensor, inputs: SequenceInputs, saved: Tensor
    ) -> list[Tensor | None]:
        """Gradients of u, delta, A, B, C, D, delta_bias, initial_state (None where the input is None)."""


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    if tuple(tensor.shape) != shape:
        raise ConfigError(
            f"{name} has shape {tuple(tensor.shape)}, expected {shape} = {meaning}", where="selective scan"
        )


def _expect_rank(name: str, tensor: Tensor, rank: int, meaning: str) -> None:
    if tensor.dim() != rank:
        raise ConfigError(
            f"{name} has {tensor.dim()} axes (shape {tuple(tensor.shape)}), expected {rank}: {meaning}",
            where="selective scan",
        )


def _check_device(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise ConfigError(
            f"{name} is on {tensor.device}, u on {device}", where="selective scan", remedy="move both to one device"
        )


def _check_kind(tensors: dict[str, Tensor | None], device: torch.device) -> None:
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        _check_device(name, tensor, device)
        if not tensor.is_floating_point():
            raise ConfigError(f"{name} has dtype {tensor.dtype}, expected a real floating type", where="selective scan")


def check_directional(inputs: DirectionalInputs) -> None:
    """Check shapes, dtypes and devices; the values of ``order`` are the caller's promise (orders.py makes them).

    Raises:
        ConfigError: naming the argument, its shape or dtype, and what was expected.
    """
    u, dt, A, B, C, D, dt_weight, dt_bias, order = inputs
    _expect_rank("u", u, 3, "(batch, L, E)")
    _expect_rank("dt", dt, 4, "(batch, L, K, R)")
    _expect_rank("A", A, 3, "(K, E, N)")
    batch, length, channels = u.shape
    directions, rank, states = dt.shape[2], dt.shape[3], A.shape[2]
    _expect("dt", dt, (batch, length, directions, rank), "(batch, L, K, R)")
    _expect("A", A, (directions, channels, states), "(K, E, N)")
    _expect("B", B, (batch, length, directions, states), "(batch, L, K, N)")
    _expect("C", C, (batch, length, directions, states), "(batch, L, K, N)")
    _expect("D", D, (directions, channels), "(K, E)")
    _expect("dt_weight", dt_weight, (directions, channels, rank), "(K, E, R)")
    _expect("dt_bias", dt_bias, (directions, channels), "(K, E)")
    _expect("order", order, (directions, length), "(K, L)")
    if order.dtype != torch.int64:
        raise ConfigError(f"order has dtype {order.dtype}, expected torch.int64", where="selective scan")
    _check_kind(dict(zip(DirectionalInputs._fields[:-1], inputs[:-1], strict=True)), u.device)
    _check_device("order", order, u.device)
    if min(batch, length, channels, directions, states) == 0:
        raise ConfigError(f"u {tuple(u.shape)}, A {tuple(A.shape)}: no axis may be empty", where="selective scan")


def check_sequence(inputs: SequenceInputs) -> None:
    """Check shapes, dtypes and devices of the plain scan.

    Raises:
        ConfigError: naming the argument, its shape or dtype, and what was expected.
    """
    u, delta, A, B, C, D, delta_bias, initial_state, _ = inputs
    _expect_rank("u", u, 3, "(batch, E, L)")
    _expect_rank("A", A, 2, "(E, N)")
    _expect_rank("B", B, 4, "(batch, G, N, L)")
    batch, channels, length = u.shape
    states, groups = A.shape[1], B.shape[1]
    if groups == 0 or channels % groups:
        raise ConfigError(f"{channels} channels cannot be divided into {groups} groups", where="selective scan, B")
    _expect("delta", delta, (batch, channels, length), "(batch, E, L)")
    _expect("A", A, (channels, states), "(E, N)")
    for name, matrix in (("B", B), ("C", C)):
        _expect(name, matrix, (batch, groups, states, length), "(batch, G, N, L)")
    for name, vector in (("D", D), ("delta_bias", delta_bias)):
        if vector is not None:
            _expect(name, vector, (channels,), "(E,)")
    if initial_state is not None:
        _expect("initial_state", initial_state, (batch, channels, states), "(batch, E, N)")
    _check_kind(dict(zip(SequenceInputs._fields[:-1], inputs[:-1], strict=True)), u.device)
    if min(batch, length, channels, states) == 0:
        raise ConfigError(f"u {tuple(u.shape)}, A {tuple(A.shape)}: no axis may be empty", where="selective scan")
