"""Both scans in C with SIMD instructions, forward and backward, on CPUs. Imports contract.py and errors.

The library is built from csrc/ when the package is installed and lies beside this file; it knows nothing of Python
or PyTorch and is called through ctypes on the tensors' memory, in whatever strides they have. It computes in
float32 on ``torch.get_num_threads()`` threads: PyTorch's own where it runs on GNU OpenMP, else some started inside each
call; processes may fork at any time.
float64 inputs take the portable path, which keeps their precision.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from ctypes import c_int64, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ...errors import BackendError, ConfigError
from . import portable
from .contract import DirectionalInputs, ScanBackend, SequenceInputs

__all__ = [
    "SIMD_VARIABLE",
    "built",
    "check",
    "directional_backward",
    "directional_forward",
    "directional_saved_numel",
    "empty",
    "library",
    "multiply_adds",
    "self_test",
    "sequence_backward",
    "sequence_forward",
    "sequence_saved_numel",
    "unavailable",
    "variant",
    "variants",
]

SIMD_VARIABLE = "MEDMAMBA_SCAN_SIMD"

_VERSION = 4  # of the structures below; medmamba_scan_version() in csrc/scan.c must agree
_OUT_OF_MEMORY, _BAD_ORDER = 1, 3
_REMEDY = "reinstall medmamba_monai with a C compiler on the PATH, or install one of its platform wheels"
_TOLERANCE = 2e-5  # of the self-test: a wrong kernel is wrong by far more


class _Strided(ctypes.Structure):
    """``scan_tensor``: memory and strides over (batch, step, slice, last)."""

    _fields_ = (
        ("data", c_void_p),
        ("batch", c_int64),
        ("step", c_int64),
        ("slice", c_int64),
        ("last", c_int64),
    )


class _Problem(ctypes.Structure):
    """``scan_problem``."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "length", "channels", "groups", "directions", "states")),
        *((name, c_int64) for name in ("rank", "low_rank", "softplus")),
        *((name, _Strided) for name in ("u", "dt", "b", "c")),
        *((name, c_void_p) for name in ("a", "skip", "weight", "bias", "initial", "order", "saved")),
    )


class _Output(ctypes.Structure):
    """``scan_output``."""

    _fields_ = (("y", _Strided), ("last", c_void_p))


class _Gradient(ctypes.Structure):
    """``scan_gradient``."""

    _fields_ = (
        ("y", _Strided),
        ("last", c_void_p),
        *((name, _Strided) for name in ("u", "dt", "b", "c")),
        *((name, c_void_p) for name in ("a", "skip", "weight", "bias", "initial")),
    )


@lru_cache(maxsize=1)
def _open() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    here = Path(__file__).parent
    found = sorted(path for path in here.glob("_scan_cpu*") if path.suffix in (".so", ".dll", ".dylib", ".pyd"))
    if not found:
        return f"its C library is not built; {_REMEDY}"
    try:
        library = ctypes.CDLL(str(found[0]))
        library.medmamba_scan_version.restype = c_int64
        version = library.medmamba_scan_version()
    except (OSError, AttributeError) as error:
        return f"{found[0].name} cannot be loaded ({error}); {_REMEDY}"
    if version != _VERSION:
        return f"{found[0].name} has layout {version}, this package needs {_VERSION}; {_REMEDY}"
    library.medmamba_scan_block.restype = c_int64
    library.medmamba_scan_variant.restype = ctypes.c_char_p
    library.medmamba_scan_variant.argtypes = (c_int64,)
    for name in ("medmamba_scan_forward", "medmamba_scan_backward"):
        function = getattr(library, name)
        function.restype = c_int64
        function.argtypes = (ctypes.c_char_p, c_void_p, c_void_p, c_int64)
    library.medmamba_multiply_adds.restype = c_int64
    library.medmamba_multiply_adds.argtypes = (ctypes.c_char_p, c_int64, c_int64)
    library.medmamba_scan_use_team.restype = None
    library.medmamba_scan_use_team.argtypes = (c_void_p, c_void_p)
    library.medmamba_scan_use_team(*_team_entries())
    return library


def _team_entries() -> tuple[int | None, int | None]:
    """Addresses of the entries of the OpenMP runtime that PyTorch has loaded for itself; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None, None
    process = ctypes.CDLL(None)
    start, number = (getattr(process, name, None) for name in ("GOMP_parallel", "omp_get_thread_num"))
    if start is None or number is None:
        return None, None
    return ctypes.cast(start, c_void_p).value, ctypes.cast(number, c_void_p).value


def library() -> ctypes.CDLL:
    """The C library.

    Raises:
        BackendError: where there is none.
    """
    found = _open()
    if isinstance(found, str):
        raise BackendError(f"scan backend 'cpu' cannot run: {found}")
    return found


def unavailable(device: torch.device) -> str | None:
    """Why this backend cannot run on ``device``; None when it can."""
    if device.type != "cpu":
        return f"it runs on CPUs, not on {device.type}"
    library = _open()
    return library if isinstance(library, str) else None


@lru_cache(maxsize=1)
def built() -> tuple[str, ...]:
    """Names of all instruction sets that this build holds, best first, also those this machine cannot use.

    Raises:
        BackendError: without the library, or with one built from older sources, which does not tell.
    """
    try:
        entry = library().medmamba_scan_built
    except AttributeError:
        raise BackendError("the C library was built from older sources", remedy=_REMEDY) from None
    entry.restype, entry.argtypes = ctypes.c_char_p, (c_int64,)
    return _names(entry)


def _names(entry: Callable[[int], bytes | None]) -> tuple[str, ...]:
    """What an entry point says for 0, 1, .. until it says NULL."""
    names: list[str] = []
    while (name := entry(len(names))) is not None:
        names.append(name.decode())
    return tuple(names)


@lru_cache(maxsize=1)
def variants() -> tuple[str, ...]:
    """Names of the instruction sets this machine and this build can use, best first.

    Raises:
        BackendError: without the library.
    """
    return _names(library().medmamba_scan_variant)


def variant() -> str:
    """Name of the instruction set in use: the best, or the one named by ``MEDMAMBA_SCAN_SIMD``.

    Raises:
        BackendError: without the library, or when the one named cannot run here.
    """
    asked = os.environ.get(SIMD_VARIABLE)
    if not asked:
        return variants()[0]
    if asked not in variants():
        raise BackendError(
            f"{asked!r} is not among the instruction sets that run here",
            where=SIMD_VARIABLE,
            remedy=f"use one of {', '.join(variants())}, or unset it",
        )
    return asked


def multiply_adds(count: int) -> int:
    """Do nothing but multiply-adds of whole vectors in registers, on every thread: the most this processor can do.

    Args:
        count: a thread's rounds of twelve vectors.

    Returns:
        Multiply-adds of single numbers done in all.
    """
    return int(library().medmamba_multiply_adds(variant().encode(), count, torch.get_num_threads()))


def _blocks(length: int) -> int:
    """Blocks of steps, each with its state saved."""
    return -(-length // int(library().medmamba_scan_block()))


def _float(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float32 else tensor.float()


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else _float(tensor).contiguous()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _pixels(tensor: Tensor) -> _Strided:
    """A map (batch, L, channels) or (batch, L, K, n)."""
    stride = tensor.stride()
    slices = stride[2] if len(stride) == 4 else 0
    return _Strided(tensor.data_ptr(), stride[0], stride[1], slices, stride[-1])


def _series(tensor: Tensor) -> _Strided:
    """A sequence (batch, channels, L) or (batch, G, N, L)."""
    stride = tensor.stride()
    slices = stride[1] if len(stride) == 4 else 0
    return _Strided(tensor.data_ptr(), stride[0], stride[-1], slices, stride[-2])


def _call(name: str, problem: _Problem, results: ctypes.Structure) -> None:
    function = getattr(library(), name)
    code = function(variant().encode(), ctypes.addressof(problem), ctypes.addressof(results), torch.get_num_threads())
    check(code, name)


def check(code: int, name: str) -> None:
    """Raise what an entry point's result means.

    Args:
        code: the result, 0 for success.
        name: of the entry point.

    Raises:
        ConfigError: for a pixel order that leaves the map.
        BackendError: for all else.
    """
    if code == _BAD_ORDER:
        raise ConfigError("an entry of order is not a pixel 0..L-1", where="selective scan")
    if code:
        reason = "not enough memory" if code == _OUT_OF_MEMORY else f"internal error {code}"
        raise BackendError(f"scan backend 'cpu' failed: {reason}", where=name)


# Each problem travels with the tensors it points into: they must outlive the call.


def _directional(inputs: DirectionalInputs, saved: Tensor | None) -> tuple[_Problem, list[Tensor | None]]:
    u, dt, B, C = (_float(tensor) for tensor in (inputs.u, inputs.dt, inputs.B, inputs.C))
    parameters = [_dense(t) for t in (inputs.A, inputs.D, inputs.dt_weight, inputs.dt_bias)]
    order = inputs.order.contiguous()
    batch, length, channels = u.shape
    problem = _Problem(
        batch, length, channels, 1, dt.shape[2], inputs.A.shape[2], dt.shape[3], 1, 1,
        _pixels(u), _pixels(dt), _pixels(B), _pixels(C),
        *(_pointer(tensor) for tensor in (*parameters, None, order, saved)),
    )  # fmt: skip
    return problem, [u, dt, B, C, *parameters, order, saved]


def _sequence(inputs: SequenceInputs, saved: Tensor | None) -> tuple[_Problem, list[Tensor | None]]:
    u, delta, B, C = (_float(tensor) for tensor in (inputs.u, inputs.delta, inputs.B, inputs.C))
    A, D, bias, initial = (_dense(t) for t in (inputs.A, inputs.D, inputs.delta_bias, inputs.initial_state))
    batch, channels, length = u.shape
    problem = _Problem(
        batch, length, channels, B.shape[1], 1, B.shape[2], 0, 0, int(inputs.softplus),
        _series(u), _series(delta), _series(B), _series(C),
        *(_pointer(tensor) for tensor in (A, D, None, bias, initial, None, saved)),
    )  # fmt: skip
    return problem, [u, delta, B, C, A, D, bias, initial, saved]


def directional_saved_numel(inputs: DirectionalInputs) -> int:
    """Count the numbers forward saves: the state before each block of steps."""
    if inputs.u.dtype == torch.float64:
        return portable.directional_saved_numel(inputs)
    return inputs.u.shape[0] * inputs.A.numel() * _blocks(inputs.u.shape[1])


def sequence_saved_numel(inputs: SequenceInputs) -> int:
    """Count the numbers forward saves: the state before each block of steps."""
    if inputs.u.dtype == torch.float64:
        return portable.sequence_saved_numel(inputs)
    return inputs.u.shape[0] * inputs.A.numel() * _blocks(inputs.u.shape[2])


def empty(shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Memory for the kernels to write, float32."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def directional_forward(inputs: DirectionalInputs, save: bool) -> tuple[Tensor, Tensor]:
    """Forward of the backend protocol."""
    if inputs.u.dtype == torch.float64:
        return portable.directional_forward(inputs, save)
    y, saved = empty(inputs.u.shape), empty((directional_saved_numel(inputs) if save else 0,))
    problem, _keep = _directional(inputs, saved if save else None)
    _call("medmamba_scan_forward", problem, _Output(_pixels(y), None))
    return y.to(inputs.u.dtype), saved


def directional_backward(grad: Tensor, inputs: DirectionalInputs, saved: Tensor) -> list[Tensor]:
    """Backward of the backend protocol."""
    if inputs.u.dtype == torch.float64:
        return portable.directional_backward(grad, inputs, saved)
    problem, _keep = _directional(inputs, saved.contiguous())
    grad = _float(grad)
    u, dt, A, B, C, D, weight, bias = grads = [empty(tensor.shape) for tensor in inputs[:-1]]
    results = _Gradient(
        _pixels(grad), None, _pixels(u), _pixels(dt), _pixels(B), _pixels(C),
        *(_pointer(tensor) for tensor in (A, D, weight, bias, None)),
    )  # fmt: skip
    _call("medmamba_scan_backward", problem, results)
    return [g.to(tensor.dtype) for g, tensor in zip(grads, inputs[:-1], strict=True)]


def sequence_forward(inputs: SequenceInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Forward of the backend protocol."""
    if inputs.u.dtype == torch.float64:
        return portable.sequence_forward(inputs, save)
    y, saved = empty(inputs.u.shape), empty((sequence_saved_numel(inputs) if save else 0,))
    last = empty((*inputs.u.shape[:2], inputs.A.shape[1]))
    problem, _keep = _sequence(inputs, saved if save else None)
    _call("medmamba_scan_forward", problem, _Output(_series(y), _pointer(last)))
    return y.to(inputs.u.dtype), last, saved


def sequence_backward(grad: Tensor, grad_last: Tensor, inputs: SequenceInputs, saved: Tensor) -> list[Tensor | None]:
    """Backward of the backend protocol."""
    if inputs.u.dtype == torch.float64:
        return portable.sequence_backward(grad, grad_last, inputs, saved)
    problem, _keep = _sequence(inputs, saved.contiguous())
    grad, dense_last = _float(grad), _dense(grad_last)
    grads = [None if tensor is None else empty(tensor.shape) for tensor in inputs[:-1]]
    u, delta, A, B, C, D, bias, initial = grads
    assert u is not None and delta is not None and B is not None and C is not None  # noqa: S101 never None
    results = _Gradient(
        _series(grad), _pointer(dense_last), _series(u), _series(delta), _series(B), _series(C),
        *(_pointer(tensor) for tensor in (A, D, None, bias, initial)),
    )  # fmt: skip
    _call("medmamba_scan_backward", problem, results)
    return [None if g is None or t is None else g.to(t.dtype) for g, t in zip(grads, inputs[:-1], strict=True)]


def self_test() -> str | None:
    """Compare the kernel in use with the reference on small problems, once a process and instruction set.

    Returns:
        None when they agree, else what differs: the kernel must not be used then.
    """
    return _self_test(variant())


@lru_cache(maxsize=8)
def _self_test(name: str) -> str | None:
    from . import selftest

    this, bounds = cast(ScanBackend, sys.modules[__name__]), selftest.Bounds(_TOLERANCE, _TOLERANCE)
    wrong = selftest.wrong_on_maps(this, _small_map(), bounds)
    # 19 channels of a group, and steps that begin a second block
    sequence = selftest.sequence_problem(length=int(library().medmamba_scan_block()) + 3, channels=38, states=5)
    wrong = wrong or selftest.wrong_on_sequences(this, sequence, bounds)
    return wrong and f"its {name} kernel is wrong on this machine: {wrong}"


def _small_map() -> DirectionalInputs:
    """Five pixels in two orders, 19 channels, 5 states, rank 2: full and ragged vectors.

    Step sizes hardly change in the second direction, which the kernel does in another way.
    """
    from . import selftest

    order = torch.tensor([[0, 1, 2, 3, 4], [3, 1, 4, 0, 2]])
    inputs = selftest.map_problem(order, channels=19, states=5, rank=2)
    return inputs._replace(dt_weight=inputs.dt_weight * torch.tensor([1.0, 0.01]).view(2, 1, 1))
