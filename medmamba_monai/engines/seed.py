"""Seeding once at start: everything random in this process, and a loader's generator. Used by configs."""

from __future__ import annotations

import torch
import torch.distributed as dist
from monai.utils import set_determinism

__all__ = ["loader_generator", "seed_everything"]


def seed_everything(seed: int) -> int:
    """Seed Python, NumPy, torch and MONAI's random transforms; ask cuDNN for deterministic kernels.

    All processes get the same seed, so that they initialise the same network; what must differ between them
    (the order of data, augmentation) is seeded an epoch at a time by ``handlers.ReproducibleEpochs``.

    Args:
        seed: any integer; negative and large ones are folded into 32 bits.

    Returns:
        The seed that was used.

    Example:
        >>> _ = seed_everything(3); first = torch.rand(1)
        >>> _ = seed_everything(3); bool(first == torch.rand(1))
        True
    """
    folded = int(seed) % 2**32
    set_determinism(seed=folded)
    return folded


def loader_generator(seed: int) -> torch.Generator:
    """A generator for one data loader, different on each process.

    Args:
        seed: the run's seed.

    Example:
        >>> loader_generator(1).initial_seed() == loader_generator(1).initial_seed()
        True
    """
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    return torch.Generator().manual_seed((int(seed) * 1_000_003 + rank) % 2**63)
