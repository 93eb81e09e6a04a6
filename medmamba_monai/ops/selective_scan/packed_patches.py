"""Patch embedding and patch merging for inference by the C library. Imports packed.py and cpu.py."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p

import torch
from torch import Tensor

from ...errors import BackendError, ConfigError
from . import cpu
from .packed import PANEL, Packed, Place, Product, panels

__all__ = ["PackedEmbedding", "PackedMerging"]


_KIND = 1


class _Patches(ctypes.Structure):
    """``packed_patches``."""

    _fields_ = (
        ("product", Product),
        ("gain", c_void_p),
        ("offset", c_void_p),
        ("epsilon", c_double),
        *((name, c_int64) for name in ("channels", "side", "channels_first")),
    )


class _Map(ctypes.Structure):
    """``patch_map``."""

    _fields_ = (
        *((name, c_void_p) for name in ("x", "y")),
        *((name, c_int64) for name in ("batch", "height", "width", "rows", "columns")),
    )


class _Patchwise(Packed):
    """What both have in common: patches of ``side`` pixels, a product of ``inputs`` numbers each, a norm."""

    def __init__(self, tensors: dict[str, Tensor], side: int, pad: bool, epsilon: float) -> None:
        outputs, inputs = tensors["product"].shape
        reason = self.unavailable(inputs, outputs)
        if reason is not None:
            raise BackendError(f"patches cannot be packed: {reason}")
        self.inputs, self.outputs, self.side, self.pad, self.epsilon = inputs, outputs, side, pad, epsilon
        super().__init__(_KIND, inputs // side**2, {**tensors, "product": panels(tensors["product"])})

    @staticmethod
    def unavailable(inputs: int, outputs: int) -> str | None:
        """Why a product of these sizes cannot be packed here; None when it can."""
        if inputs % PANEL or outputs % PANEL:
            return f"{inputs} numbers become {outputs}, not both a multiple of {PANEL}"
        return cpu.unavailable(torch.device("cpu"))

    def place(self, images: int, height: int, width: int) -> Place:
        """``patch_map``."""
        more = self.side - 1 if self.pad else 0
        rows, columns = (height + more) // self.side, (width + more) // self.side
        return Place(_Map(None, None, images, height, width, rows, columns), (rows, columns, self.outputs))

    def structure(self, channels_first: bool) -> _Patches:
        """``packed_patches``; without a gain the norm stands before the product."""
        gain, offset = (self.pointer(n) if n in self.tensors else None for n in ("gain", "offset"))
        product = self.product("product", self.inputs, self.outputs)
        return _Patches(product, gain, offset, self.epsilon, self.channels, self.side, channels_first)


class PackedEmbedding(_Patchwise):
    """A convolution over patches of a channels-first image, then a layer norm.

    Args:
        weight: (C, channels, side, side).
        bias: (C,).
        gain: (C,) of the norm.
        offset: (C,) of the norm.
        epsilon: of the norm.
        pad: append zeros where a side is no multiple, instead of dropping the rest.

    Raises:
        BackendError: where :meth:`unavailable` says so.
    """

    def __init__(self, weight: Tensor, bias: Tensor, gain: Tensor, offset: Tensor, epsilon: float, pad: bool) -> None:
        tensors = {"product": weight.flatten(1), "product_bias": bias, "gain": gain, "offset": offset}
        super().__init__(tensors, weight.shape[2], pad, epsilon)

    def size(self, x: Tensor) -> tuple[int, int]:
        """Height and width of images (B, channels, H, W).

        Raises:
            ConfigError: for other tensors.
        """
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ConfigError(f"shape {tuple(x.shape)}, expected (B, {self.channels}, H, W)", where=type(self).__name__)
        return x.shape[2], x.shape[3]

    def describe(self) -> _Patches:
        """``packed_patches``."""
        return self.structure(channels_first=True)


class PackedMerging(_Patchwise):
    """2 x 2 neighbours become channels, pass through a layer norm and a linear map without bias.

    Args:
        weight: (C', 4 C), for the neighbours (0,0), (1,0), (0,1), (1,1) as (row, column).
        gain: (4 C,) of the norm.
        offset: (4 C,) of the norm.
        epsilon: of the norm.
        pad: append zeros where a side is odd, instead of dropping the last row.

    Raises:
        BackendError: where :meth:`unavailable` says so.
    """

    def __init__(self, weight: Tensor, gain: Tensor, offset: Tensor, epsilon: float, pad: bool) -> None:
        weight, gain, offset = (t.detach().double() for t in (weight, gain, offset))
        super().__init__({"product": weight * gain, "product_bias": weight @ offset}, 2, pad, epsilon)

    def describe(self) -> _Patches:
        """``packed_patches``."""
        return self.structure(channels_first=False)
