"""Random problems for the scans, and the error measure all backends are held to."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import torch
from torch import Tensor

from medmamba_monai.ops import index_table
from medmamba_monai.ops.selective_scan import cpu
from medmamba_monai.ops.selective_scan.contract import DirectionalInputs, SequenceInputs


def directional(
    spatial: tuple[int, ...],
    batch: int = 1,
    channels: int = 6,
    rank: int = 2,
    states: int = 4,
    scan: str = "cross",
    dtype: torch.dtype = torch.float64,
    step_scale: float = 1.0,
    seed: int = 0,
) -> DirectionalInputs:
    """Inputs whose every part matters: decays between 0 and 1, step sizes of order one."""
    generator = torch.Generator().manual_seed(seed)
    order = index_table(scan, spatial)
    k, length = order.shape

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return DirectionalInputs(
        u=draw(batch, length, channels),
        dt=draw(batch, length, k, rank) * step_scale,
        A=-torch.exp(0.5 * draw(k, channels, states)),
        B=draw(batch, length, k, states),
        C=draw(batch, length, k, states),
        D=draw(k, channels),
        dt_weight=draw(k, channels, rank) * rank**-0.5,
        dt_bias=draw(k, channels) - 1.0,
        order=order,
    )


def sequence(
    length: int,
    batch: int = 2,
    channels: int = 6,
    groups: int = 2,
    states: int = 4,
    optional: bool = True,
    softplus: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> SequenceInputs:
    """Inputs of the plain scan; without the optional ones, delta is made positive."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    delta = draw(batch, channels, length) - 1.0
    return SequenceInputs(
        u=draw(batch, channels, length),
        delta=delta if softplus else delta.exp(),
        A=-torch.exp(0.5 * draw(channels, states)),
        B=draw(batch, groups, states, length),
        C=draw(batch, groups, states, length),
        D=draw(channels) if optional else None,
        delta_bias=draw(channels) if optional and softplus else None,
        initial_state=draw(batch, channels, states) if optional else None,
        softplus=softplus,
    )


def error(result: Tensor, truth: Tensor) -> float:
    """Largest difference over the largest magnitude of the truth."""
    assert result.shape == truth.shape
    return ((result.double() - truth.double()).abs().max() / truth.double().abs().max().clamp_min(1e-30)).item()


def second(function: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    """Gradients of a number made of all first gradients."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    y = function(*leaves)
    first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
    number = sum(((i + 1) * g.sin().sum() for i, g in enumerate(first)), y.new_zeros(()))  # no two gradients alike
    return list(torch.autograd.grad(number, leaves))


def to(inputs: DirectionalInputs, dtype: torch.dtype) -> DirectionalInputs:
    """The same problem in another dtype; the order stays."""
    return DirectionalInputs(*(t.to(dtype) for t in inputs[:-1]), order=inputs.order)


@contextmanager
def determinism() -> Iterator[None]:
    """Determinism asked for, in which mode PyTorch also fills fresh memory with NaN: what is not written shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        ones = torch.ones(9)
        assert torch.empty(9).isnan().all() and torch.empty_like(ones).isnan().all() and ones.new_empty(9).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def team_of_python() -> Iterator[list[int]]:
    """Work of the C library done on threads made here, instead of PyTorch's; how many each call asked for."""
    asked: list[int] = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    def team(function: int, data: int, threads: int, flags: int) -> None:
        asked.append(threads)
        work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)
        members = [Thread(target=work, args=(data,)) for _ in range(threads)]
        for member in members:
            member.start()
        for member in members:
            member.join()

    library = cpu.library()
    number = ctypes.CFUNCTYPE(ctypes.c_int)(int)  # tells 0 in all of these threads
    library.medmamba_scan_use_team(ctypes.cast(team, ctypes.c_void_p), ctypes.cast(number, ctypes.c_void_p))
    try:
        yield asked
    finally:
        library.medmamba_scan_use_team(*cpu._team_entries())
