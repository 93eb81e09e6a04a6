"""What packed parts of a network share: weights cut into panels, memory kept between calls. Imports cpu.py.

See csrc/network.h for the layouts.
"""

from __future__ import annotations

import ctypes
import threading
from abc import ABC, abstractmethod
from ctypes import c_int64, c_void_p
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from . import cpu

__all__ = ["PANEL", "WORKSPACE", "Packed", "Product", "panels", "workspace"]

PANEL = 16  # outputs side by side, as in csrc/network.h
WORKSPACE = 1 << 26  # numbers each thread keeps for the next call, 256 MB: enough for 1024 x 1024 pixels


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


@lru_cache(maxsize=8)
def _entry_points(name: str) -> tuple[Any, Any]:
    library = cpu.library()
    size = getattr(library, f"medmamba_{name}_workspace")
    size.restype, size.argtypes = c_int64, (c_void_p, c_void_p, c_int64)
    forward = getattr(library, f"medmamba_{name}_forward")
    forward.restype, forward.argtypes = c_int64, (ctypes.c_char_p, c_void_p, c_void_p, c_void_p, c_int64)
    return size, forward


class Packed(ABC):
    """A part of a network with its weights as the C library reads them. Calls do not change it.

    Args:
        name: of its entry points.
        tensors: the packed weights; float32, dense and on the CPU from here on.
    """

    def __init__(self, name: str, tensors: dict[str, Tensor]) -> None:
        self.name = name
        self.tensors = {
            key: t.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)
            for key, t in tensors.items()
        }
        self._struct: ctypes.Structure | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the structure of pointers, which copies make anew."""
        return {**self.__dict__, "_struct": None}

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Apply it to a batch of maps in float32 on the CPU."""

    @abstractmethod
    def describe(self) -> ctypes.Structure:
        """The structure that its entry points take."""

    def pointer(self, name: str) -> int:
        """Address of a packed tensor."""
        return self.tensors[name].data_ptr()

    def product(self, name: str, inputs: int, outputs: int) -> Product:
        """A product whose weight and bias are ``name`` and ``name_bias``."""
        return Product(self.pointer(name), self.pointer(f"{name}_bias"), inputs, outputs)

    def workspace_size(self, place: ctypes.Structure) -> int:
        """Numbers of workspace needed on a map."""
        size, _ = _entry_points(self.name)
        structure = self._described()
        return int(size(ctypes.addressof(structure), ctypes.addressof(place), torch.get_num_threads()))

    def run(self, place: ctypes.Structure) -> None:
        """Call the library.

        Raises:
            BackendError: when it fails.
        """
        _, forward = _entry_points(self.name)
        memory, structure = workspace(self.workspace_size(place)), self._described()
        code = forward(
            cpu.variant().encode(),
            ctypes.addressof(structure),
            ctypes.addressof(place),
            memory.data_ptr(),
            torch.get_num_threads(),
        )
        cpu.check(code, f"medmamba_{self.name}_forward")

    def _described(self) -> ctypes.Structure:
        """The structure, made once; a caller holds it while C reads it, as another thread may make one as well."""
        structure = self._struct
        if structure is None:
            structure = self._struct = self.describe()
        return structure
