"""Where bfloat16 autocast is allowed: one rule for the training and the evaluation step."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from medmamba_monai.errors import ConfigError

__all__ = ["amp_supported", "autocast", "is_on"]


def amp_supported(device: torch.device | str) -> bool:
    """Whether ``device`` computes bfloat16 in hardware (emulation does not count: it is slower than float32).

    Args:
        device: where the network lives.

    Returns:
        True for CUDA devices with bfloat16 units and for CPUs whose oneDNN accepts bfloat16; False elsewhere.

    Example:
        >>> amp_supported("meta")
        False
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def autocast(device: torch.device | str, enabled: bool) -> AbstractContextManager[object]:
    """Context in which matrix products run in bfloat16, whose range is float32's: no loss scaling.

    Args:
        device: where the network lives.
        enabled: False gives a context that does nothing.

    Raises:
        ConfigError: mixed precision was asked for on a device that cannot do it.

    Example:
        >>> with autocast("cpu", enabled=False):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.float32
    """
    if not enabled:
        return nullcontext()
    kind = torch.device(device).type
    if not amp_supported(device):
        raise ConfigError(
            f"amp=True, but device '{device}' has no bfloat16 arithmetic",
            remedy="set amp to false (--amp false), or choose a device that supports bfloat16",
        )
    return torch.autocast(kind, dtype=torch.bfloat16)


def is_on(switch: bool | str | None, name: str = "amp") -> bool:
    """A switch's value; a command line gives the texts "true" and "false".

    Raises:
        ConfigError: anything else.

    Example:
        >>> is_on("false"), is_on(True)
        (False, True)
    """
    known = {"true": True, "false": False, "none": False}
    text = str(switch).lower()
    if text not in known:
        raise ConfigError(f"{name}={switch!r} is neither true nor false")
    return known[text]
