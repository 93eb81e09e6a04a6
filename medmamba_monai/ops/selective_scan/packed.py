"""Parts of a network packed for the C library, and the call that applies several in a row. Imports cpu.py and errors.

See csrc/network.h for the layouts.
"""

from __future__ import annotations

import ctypes
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import ConfigError
from . import cpu

__all__ = ["PANEL", "WORKSPACE", "Packed", "PackedChain", "Place", "Product", "panels", "workspace"]

PANEL = 16  # outputs side by side, as in csrc/network.h
WORKSPACE = 1 << 26  # numbers each thread keeps for the next call, 256 MB: enough for 1024 x 1024 pixels
_TOGETHER = 1 << 23  # numbers of workspace for the images of one call, 32 MB
_SIZES = 8  # sizes of maps a chain keeps its structures for


class Product(ctypes.Structure):
    """``packed_product``."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("inputs", c_int64), ("outputs", c_int64))


def panels(weight: Tensor) -> Tensor:
    """Cut weights (..., outputs, inputs) into (..., panels, inputs, PANEL), with zeros behind the last output."""
    missing = -weight.shape[-2] % PANEL
    padded = torch.nn.functional.pad(weight, (0, 0, 0, missing))
    return padded.unflatten(-2, (-1, PANEL)).transpose(-1, -2)


_kept = threading.local()


def workspace(size: int) -> Tensor:
    """Memory for one call, kept by each thread for the next: asking the system for it costs a tenth of the time."""
    memory: Tensor | None = getattr(_kept, "memory", None)
    if memory is None or memory.numel() < size:
        memory = cpu.empty((size,))
        if size <= WORKSPACE:
            _kept.memory = memory
    return memory


@lru_cache(maxsize=1)
def _entry_points() -> tuple[Any, Any]:
    library = cpu.library()
    size, forward = library.medmamba_chain_workspace, library.medmamba_chain_forward
    size.restype, size.argtypes = c_int64, (c_void_p, c_int64, c_int64)
    forward.restype = c_int64
    forward.argtypes = (ctypes.c_char_p, c_void_p, c_int64, c_void_p, c_void_p, c_void_p, c_int64)
    return size, forward


class Place(NamedTuple):
    """Where a part is applied.

    Attributes:
        map: the structure its kind of part takes, without memory.
        shape: (height, width, channels) of what comes out.
        keep: what the structure points to.
    """

    map: ctypes.Structure
    shape: tuple[int, int, int]
    keep: object = None


class Packed(ABC):
    """A part of a network with its weights as the C library reads them. Calls do not change it.

    Args:
        kind: its number in a ``chain_link``.
        channels: of what goes in.
        tensors: the packed weights; float32, dense and on the CPU from here on.
    """

    def __init__(self, kind: int, channels: int, tensors: dict[str, Tensor]) -> None:
        self.kind, self.channels = kind, channels
        self.tensors = {
            key: t.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)
            for key, t in tensors.items()
        }

    @abstractmethod
    def describe(self) -> ctypes.Structure:
        """The structure of its weights."""

    @abstractmethod
    def place(self, images: int, height: int, width: int) -> Place:
        """Where it is applied to maps of that size."""

    def size(self, x: Tensor) -> tuple[int, int]:
        """Height and width of maps (B, H, W, C).

        Raises:
            ConfigError: for other tensors.
        """
        if x.dim() != 4 or x.shape[3] != self.channels:
            raise ConfigError(f"shape {tuple(x.shape)}, expected (B, H, W, {self.channels})", where=type(self).__name__)
        return x.shape[1], x.shape[2]

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it to a batch of maps (B, H, W, C) in float32 on the CPU."""
        return PackedChain([self])(x)

    def pointer(self, name: str) -> int:
        """Address of a packed tensor."""
        return self.tensors[name].data_ptr()

    def product(self, name: str, inputs: int, outputs: int) -> Product:
        """A product whose weight and bias are ``name`` and ``name_bias``."""
        return Product(self.pointer(name), self.pointer(f"{name}_bias"), inputs, outputs)


class _Link(ctypes.Structure):
    """``chain_link``."""

    _fields_ = (("kind", c_int64), ("part", c_void_p), ("map", c_void_p))


class _Links(NamedTuple):
    """Parts in their places, ready for the library; the last field keeps what the first points to."""

    array: ctypes.Array[_Link]
    workspace: int
    shape: tuple[int, int, int]
    keep: object


class PackedChain:
    """Parts in a row as one call: between calls Python would have to be fetched into the caches anew.

    Large batches go through in pieces, so that the workspace stays small.

    Args:
        parts: each takes what the one before it gives.
    """

    def __init__(self, parts: Sequence[Packed]) -> None:
        self.parts = list(parts)
        self._known: dict[tuple[int, ...], _Links] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out pointers, which copies make anew."""
        return {**self.__dict__, "_known": {}}

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the parts to a batch in float32 on the CPU.

        Raises:
            ConfigError: when it does not fit the first part, or nothing is left of it on the way.
            BackendError: when the library fails.
        """
        x, threads = x.contiguous(), torch.get_num_threads()
        size, together = self.parts[0].size(x), self.together(x)
        y = cpu.empty((len(x), *self._links(1, *size, threads).shape))
        for first in range(0, len(x), together):
            images = min(together, len(x) - first)
            links = self._links(images, *size, threads)
            memory = workspace(links.workspace)  # held while C works in it: large ones are not kept
            _, forward = _entry_points()
            code = forward(
                cpu.variant().encode(), links.array, len(self.parts),
                x.data_ptr() + first * x.stride(0) * x.element_size(),
                y.data_ptr() + first * y.stride(0) * y.element_size(),
                memory.data_ptr(), threads,
            )  # fmt: skip
            cpu.check(code, "medmamba_chain_forward")
        return y

    def together(self, x: Tensor) -> int:
        """How many images of such a batch go through at once."""
        return max(1, _TOGETHER // self._links(1, *self.parts[0].size(x), torch.get_num_threads()).workspace)

    def _links(self, images: int, height: int, width: int, threads: int) -> _Links:
        key = (images, height, width, threads)
        links = self._known.get(key)
        if links is None:
            if len(self._known) >= _SIZES:
                self._known = {}
            links = self._known[key] = self._make_links(*key)
        return links

    def _make_links(self, images: int, height: int, width: int, threads: int) -> _Links:
        array = (_Link * len(self.parts))()
        keep: list[object] = []
        shape = (height, width, 0)
        for link, part in zip(array, self.parts, strict=True):
            weights, place = part.describe(), part.place(images, *shape[:2])
            link.kind, link.part, link.map = part.kind, ctypes.addressof(weights), ctypes.addressof(place.map)
            keep += [weights, place]
            shape = place.shape
            if min(height, width, *shape) < 1:
                raise ConfigError(f"nothing is left of maps of {height} x {width}", where=type(part).__name__)
        size, _ = _entry_points()
        return _Links(array, int(size(array, len(array), threads)), shape, keep)
