"""A whole SS-Conv-SSM block for inference as one call of the C library of ``cpu.py``. Imports cpu.py and errors.

Weights are rearranged once: norms without a nonlinearity behind them are folded into their neighbours, 3 x 3
convolutions are transformed for Winograd's algorithm (Lavin and Gray, arXiv 1509.09308), all products are cut into the
panels the kernels read. See csrc/network.h.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import c_double, c_int64, c_void_p
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import BackendError
from . import cpu

__all__ = ["PANEL", "BlockWeights", "PackedBlock", "transform_convolution"]

PANEL = 16  # outputs side by side, as in csrc/network.h
_WORKSPACE = 1 << 23  # numbers kept for the next call, 32 MB; larger batches go through in parts
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


class _Product(ctypes.Structure):
    """``packed_product``."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("inputs", c_int64), ("outputs", c_int64))


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
        ("conv3", _Product),
        ("in_proj", _Product),
        ("depthwise", c_void_p),
        ("depthwise_bias", c_void_p),
        ("x_proj", _Product),
        *((name, c_void_p) for name in ("a", "skip", "dt_weight", "dt_bias", "gain", "offset")),
        ("out_proj", _Product),
        ("norm_epsilon", c_double),
        ("out_norm_epsilon", c_double),
    )


class _Map(ctypes.Structure):
    """``block_map``."""

    _fields_ = (
        *((name, c_void_p) for name in ("x", "y", "order")),
        *((name, c_int64) for name in ("batch", "height", "width")),
    )


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = cpu.library()
    library.medmamba_block_workspace.restype = c_int64
    library.medmamba_block_workspace.argtypes = (c_void_p, c_void_p, c_int64)
    library.medmamba_block_forward.restype = c_int64
    library.medmamba_block_forward.argtypes = (ctypes.c_char_p, c_void_p, c_void_p, c_void_p, c_int64)
    return library


_kept = threading.local()


def _workspace(size: int) -> Tensor:
    """Memory for a call, kept by each thread for the next: asking the system for it anew costs a tenth of the time."""
    memory: Tensor | None = getattr(_kept, "memory", None)
    if memory is None or memory.numel() < size:
        memory = cpu.empty((size,))
        if size <= _WORKSPACE:
            _kept.memory = memory
    return memory


def _panels(weight: Tensor) -> Tensor:
    """(..., outputs, inputs) as (..., panels, inputs, PANEL), with zeros behind the last output."""
    missing = -weight.shape[-2] % PANEL
    padded = torch.nn.functional.pad(weight, (0, 0, 0, missing))
    return padded.unflatten(-2, (-1, PANEL)).transpose(-1, -2).float().contiguous()


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


class PackedBlock:
    """A block with its weights as the C library reads them. Calling it does not change it; copies share the weights.

    Args:
        weights: of the block, on any device and in any dtype; they are copied.

    Raises:
        BackendError: where :meth:`unavailable` says so.
    """

    def __init__(self, weights: BlockWeights) -> None:
        half = weights.conv1.shape[0]
        reason = self.unavailable(half)
        if reason is not None:
            raise BackendError(f"a block cannot be packed: {reason}")
        directions, _, rank = weights.dt_weight.shape
        self.half, self.rank, self.states, self.directions = half, rank, weights.A.shape[2], directions
        self.epsilons = weights.epsilons
        self.tile = 4 if half <= _WIDE else 2
        self.tensors = _pack(weights, self.tile)
        self._struct: _Block | None = None

    @staticmethod
    def unavailable(half: int) -> str | None:
        """Why blocks of ``half`` channels in each branch cannot be packed here; None when they can."""
        if half % PANEL:
            return f"half of its channels is {half}, no multiple of {PANEL}"
        return cpu.unavailable(torch.device("cpu"))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the structure of pointers, which copies make anew."""
        return {**self.__dict__, "_struct": None}

    def __call__(self, x: Tensor, order: Tensor) -> Tensor:
        """Apply the block to maps.

        Args:
            x: (B, H, W, 2 C) float32 on the CPU.
            order: (K, H * W) int64, see :func:`medmamba_monai.ops.orders.index_table`.

        Returns:
            The same shape.

        Raises:
            BackendError: when the library fails.
        """
        library, threads, variant = _library(), torch.get_num_threads(), cpu.variant().encode()
        if self._struct is None:
            self._struct = self._describe()
        block, (batch, height, width, _) = ctypes.addressof(self._struct), x.shape
        x, order = x.contiguous(), order.contiguous()
        y = cpu.empty(x.shape)
        one = _Map(None, None, None, 1, height, width)
        together = max(1, _WORKSPACE // int(library.medmamba_block_workspace(block, ctypes.addressof(one), threads)))
        for first in range(0, batch, together):
            count = min(together, batch - first)
            part = _Map(x[first].data_ptr(), y[first].data_ptr(), order.data_ptr(), count, height, width)
            where = ctypes.addressof(part)
            memory = _workspace(library.medmamba_block_workspace(block, where, threads))
            code = library.medmamba_block_forward(variant, block, where, memory.data_ptr(), threads)
            cpu.check(code, "medmamba_block_forward")
        return y

    def _describe(self) -> _Block:
        pointer = {name: tensor.data_ptr() for name, tensor in self.tensors.items()}

        def product(name: str, inputs: int, outputs: int) -> _Product:
            return _Product(pointer[name], pointer[f"{name}_bias"], inputs, outputs)

        def convolution(name: str, scale: int | None, shift: int | None) -> _Convolution:
            return _Convolution(pointer[name], pointer[f"{name}_bias"], scale, shift, self.half, self.tile)

        half, parameters = self.half, self.directions * (self.rank + 2 * self.states)
        return _Block(
            half, self.rank, self.states, self.directions,
            convolution("conv1", pointer["scale"], pointer["shift"]), convolution("conv2", None, None),
            product("conv3", half, half), product("in_proj", half, 4 * half),
            pointer["depthwise"], pointer["depthwise_bias"], product("x_proj", 2 * half, parameters),
            *(pointer[name] for name in ("A", "D", "dt_weight", "dt_bias", "out_norm", "out_norm_bias")),
            product("out_proj", 2 * half, half), *self.epsilons,
        )  # fmt: skip


def _pack(weights: BlockWeights, tile: int) -> dict[str, Tensor]:
    """Rearrange all weights; float64 until the last step."""
    w = weights._replace(
        **{name: t.detach().cpu().double() for name, t in weights._asdict().items() if isinstance(t, Tensor)}
    )
    x_proj = w.x_proj.flatten(0, 1)
    packed = {
        "conv1": _panels(transform_convolution(w.conv1, tile)),
        "conv2": _panels(transform_convolution(w.conv2, tile)),
        "conv3": _panels(w.conv3),
        "in_proj": _panels(w.in_proj * w.norm),
        "in_proj_bias": w.in_proj @ w.norm_bias,
        "depthwise": w.depthwise.flatten(1).T,
        "x_proj": _panels(x_proj),
        "x_proj_bias": x_proj.new_zeros(len(x_proj) + -len(x_proj) % PANEL),
        "out_proj": _panels(w.out_proj),
        "out_proj_bias": w.out_proj.new_zeros(len(w.out_proj)),
    }
    for name in (
        "scale", "shift", "conv1_bias", "conv2_bias", "conv3_bias", "depthwise_bias", "A", "D", "dt_weight", "dt_bias",
        "out_norm", "out_norm_bias",
    ):  # fmt: skip
        packed[name] = getattr(w, name)
    return {name: tensor.float().contiguous() for name, tensor in packed.items()}
