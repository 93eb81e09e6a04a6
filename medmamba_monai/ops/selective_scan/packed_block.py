"""A whole SS-Conv-SSM block for inference by the C library. Imports packed.py, cpu.py, orders and errors.

Weights are rearranged once: norms without a nonlinearity behind them are folded into their neighbours, 3 x 3
convolutions are transformed for Winograd's algorithm (Lavin and Gray, arXiv 1509.09308), all products are cut into the
panels the kernels read. See csrc/network.h.
"""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import BackendError
from ..orders import index_table
from . import cpu
from .packed import PANEL, Packed, Place, Product, panels

__all__ = ["BlockWeights", "PackedBlock", "transform_convolution"]

_KIND = 0
_WIDE = 128  # from more channels on, convolutions use small tiles: weights, not arithmetic, set the time there


class BlockWeights(NamedTuple):
    """Weights of a block in two dimensions, batch norms folded; C channels in each half, E = 2 C are scanned.

    Attributes:
        scale: (C,) and ``shift``: applied to the left half before ``conv1``, whose padding stays zero.
        shift: (C,).
        conv1: (C, C, 3, 3), then ReLU.
        conv1_bias: (C,).
        conv2: (C, C, 3, 3), then ReLU.
        conv2_bias: (C,).
        conv3: (C, C), then ReLU.
        conv3_bias: (C,).
        norm: (C,) gain of the layer norm of the right half.
        norm_bias: (C,).
        in_proj: (2 E, C).
        depthwise: (E, 3, 3), then SiLU.
        depthwise_bias: (E,).
        x_proj: (K, R + 2 N, E).
        A: (K, E, N), negative.
        D: (K, E).
        dt_weight: (K, E, R).
        dt_bias: (K, E).
        out_norm: (E,) gain of the layer norm after the scan.
        out_norm_bias: (E,).
        out_proj: (C, E).
        epsilons: of the two layer norms.
    """

    scale: Tensor
    shift: Tensor
    conv1: Tensor
    conv1_bias: Tensor
    conv2: Tensor
    conv2_bias: Tensor
    conv3: Tensor
    conv3_bias: Tensor
    norm: Tensor
    norm_bias: Tensor
    in_proj: Tensor
    depthwise: Tensor
    depthwise_bias: Tensor
    x_proj: Tensor
    A: Tensor
    D: Tensor
    dt_weight: Tensor
    dt_bias: Tensor
    out_norm: Tensor
    out_norm_bias: Tensor
    out_proj: Tensor
    epsilons: tuple[float, float]


class _Convolution(ctypes.Structure):
    """``packed_convolution``."""

    _fields_ = (
        *((name, c_void_p) for name in ("weight", "bias", "scale", "shift")),
        *((name, c_int64) for name in ("channels", "tile")),
    )


class _Block(ctypes.Structure):
    """``packed_block``."""

    _fields_ = (
        *((name, c_int64) for name in ("half", "rank", "states", "directions")),
        ("conv1", _Convolution),
        ("conv2", _Convolution),
        ("conv3", Product),
        ("in_proj", Product),
        ("depthwise", c_void_p),
        ("depthwise_bias", c_void_p),
        ("x_proj", Product),
        *((name, c_void_p) for name in ("a", "skip", "dt_weight", "dt_bias", "gain", "offset")),
        ("out_proj", Product),
        ("norm_epsilon", c_double),
        ("out_norm_epsilon", c_double),
    )


class _Map(ctypes.Structure):
    """``block_map``."""

    _fields_ = (
        *((name, c_void_p) for name in ("x", "y", "order")),
        *((name, c_int64) for name in ("batch", "height", "width")),
    )


def transform_convolution(weight: Tensor, tile: int) -> Tensor:
    """Weights of a 3 x 3 convolution at the points of Winograd's algorithm.

    Args:
        weight: (outputs, inputs, 3, 3).
        tile: outputs of a tile along an axis, 2 or 4.

    Returns:
        ((tile + 2)^2, outputs, inputs), float64.
    """
    rows = {
        2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        4: [
            [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
        ],
    }[tile]  # fmt: skip
    G = torch.tensor(rows, dtype=torch.float64)
    return torch.einsum("pi,qj,ocij->pqoc", G, G, weight.double()).flatten(0, 1)


class PackedBlock(Packed):
    """A block.

    Args:
        weights: of the block, on any device and in any dtype; they are copied.
        scan: its pixel orders, one of :data:`medmamba_monai.ops.SCANS`.

    Raises:
        BackendError: where :meth:`unavailable` says so.
    """

    def __init__(self, weights: BlockWeights, scan: str) -> None:
        half = weights.conv1.shape[0]
        reason = self.unavailable(half)
        if reason is not None:
            raise BackendError(f"a block cannot be packed: {reason}")
        self.scan, self.half, self.epsilons = scan, half, weights.epsilons
        self.directions, _, self.rank = weights.dt_weight.shape
        self.states = weights.A.shape[2]
        self.tile = 4 if half <= _WIDE else 2
        super().__init__(_KIND, 2 * half, _pack(weights, self.tile))

    @staticmethod
    def unavailable(half: int) -> str | None:
        """Why blocks of ``half`` channels in each branch cannot be packed here; None when they can."""
        if half % PANEL:
            return f"half of its channels is {half}, no multiple of {PANEL}"
        return cpu.unavailable(torch.device("cpu"))

    def place(self, images: int, height: int, width: int) -> Place:
        """``block_map``."""
        order = index_table(self.scan, (height, width))
        block_map = _Map(None, None, order.data_ptr(), images, height, width)
        return Place(block_map, (height, width, 2 * self.half), order)

    def describe(self) -> _Block:
        """``packed_block``."""
        half, parameters = self.half, self.directions * (self.rank + 2 * self.states)

        def convolution(name: str, scale: int | None, shift: int | None) -> _Convolution:
            return _Convolution(self.pointer(name), self.pointer(f"{name}_bias"), scale, shift, half, self.tile)

        return _Block(
            half, self.rank, self.states, self.directions,
            convolution("conv1", self.pointer("scale"), self.pointer("shift")), convolution("conv2", None, None),
            self.product("conv3", half, half), self.product("in_proj", half, 4 * half),
            self.pointer("depthwise"), self.pointer("depthwise_bias"), self.product("x_proj", 2 * half, parameters),
            *(self.pointer(name) for name in ("A", "D", "dt_weight", "dt_bias", "out_norm", "out_norm_bias")),
            self.product("out_proj", 2 * half, half), *self.epsilons,
        )  # fmt: skip


def _pack(weights: BlockWeights, tile: int) -> dict[str, Tensor]:
    """Rearrange all weights, in float64."""
    double: dict[str, Any] = {
        name: t.detach().cpu().double() for name, t in weights._asdict().items() if isinstance(t, Tensor)
    }
    w = weights._replace(**double)
    x_proj = w.x_proj.flatten(0, 1)
    packed = {
        "conv1": panels(transform_convolution(w.conv1, tile)),
        "conv2": panels(transform_convolution(w.conv2, tile)),
        "conv3": panels(w.conv3),
        "in_proj": panels(w.in_proj * w.norm),
        "in_proj_bias": w.in_proj @ w.norm_bias,
        "depthwise": w.depthwise.flatten(1).T,
        "x_proj": panels(x_proj),
        "x_proj_bias": x_proj.new_zeros(len(x_proj) + -len(x_proj) % PANEL),
        "out_proj": panels(w.out_proj),
        "out_proj_bias": w.out_proj.new_zeros(len(w.out_proj)),
    }
    for name in (
        "scale", "shift", "conv1_bias", "conv2_bias", "conv3_bias", "depthwise_bias", "A", "D", "dt_weight", "dt_bias",
        "out_norm", "out_norm_bias",
    ):  # fmt: skip
        packed[name] = getattr(w, name)
    return packed
