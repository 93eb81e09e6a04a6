"""The sizes MedMamba comes in, as one table, and a factory for each. Imports medmamba.py.

"released" are the sizes of the released code; the others called small and base are those whose figures the paper
prints. Both exist under one name in the wild: read depths and dims from a checkpoint, never from its name.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import ConfigError
from .medmamba import MedMamba

__all__ = [
    "PRESETS",
    "Preset",
    "create",
    "medmamba_base",
    "medmamba_base_released",
    "medmamba_nano",
    "medmamba_small",
    "medmamba_small_released",
    "medmamba_tiny",
    "preset_name",
]


class Preset(NamedTuple):
    """Depths, channels and, for checking, the parameters of a 2-D network for 3 channels and 6 classes."""

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    parameters: int


PRESETS = {
    "nano": Preset((1, 1, 2, 1), (32, 64, 128, 256), 981_494),
    "tiny": Preset((2, 2, 4, 2), (96, 192, 384, 768), 14_457_222),
    "small": Preset((2, 2, 12, 2), (96, 192, 384, 768), 22_793_094),
    "base": Preset((2, 2, 16, 2), (128, 256, 512, 1024), 47_126_022),
    "small_released": Preset((2, 2, 8, 2), (96, 192, 384, 768), 18_625_158),
    "base_released": Preset((2, 2, 12, 2), (128, 256, 512, 1024), 39_864_838),
}


def create(preset: str, **options: Any) -> MedMamba:
    """Build a network of a preset's size.

    Args:
        preset: a name of :data:`PRESETS`.
        options: any argument of :class:`~medmamba_monai.networks.MedMamba`.

    Raises:
        ConfigError: for an unknown preset.

    Example:
        >>> create("nano", num_classes=2, in_channels=1).config["dims"]
        [32, 64, 128, 256]
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}", remedy=f"use one of {', '.join(PRESETS)}")
    depths, dims, _ = PRESETS[preset]
    return MedMamba(**{"depths": depths, "dims": dims, **options})


def preset_name(config: dict[str, Any]) -> str | None:
    """Name of the preset whose depths and dims a network's ``config`` has; None for other sizes."""
    for name, (depths, dims, _) in PRESETS.items():
        if (tuple(config.get("depths", ())), tuple(config.get("dims", ()))) == (depths, dims):
            return name
    return None


def medmamba_nano(**options: Any) -> MedMamba:
    """Build the network of about 1 M parameters, for laptops; options as for :class:`MedMamba`."""
    return create("nano", **options)


def medmamba_tiny(**options: Any) -> MedMamba:
    """Build MedMamba-T; options as for :class:`MedMamba`."""
    return create("tiny", **options)


def medmamba_small(**options: Any) -> MedMamba:
    """Build MedMamba-S of the paper's figures; options as for :class:`MedMamba`."""
    return create("small", **options)


def medmamba_base(**options: Any) -> MedMamba:
    """Build MedMamba-B of the paper's figures; options as for :class:`MedMamba`."""
    return create("base", **options)


def medmamba_small_released(**options: Any) -> MedMamba:
    """Build MedMamba-S as the released code does; options as for :class:`MedMamba`."""
    return create("small_released", **options)


def medmamba_base_released(**options: Any) -> MedMamba:
    """Build MedMamba-B as the released code does; options as for :class:`MedMamba`."""
    return create("base_released", **options)
