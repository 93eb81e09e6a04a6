"""Answers to unequal classes: loss weights and samplers, on one process or many. Used by configs."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

import torch
import torch.distributed as dist
from monai.data import DistributedSampler, DistributedWeightedRandomSampler
from torch.utils.data import Sampler, WeightedRandomSampler

from medmamba_monai.engines.precision import is_on
from medmamba_monai.errors import ConfigError, DataError

__all__ = ["class_weights", "evaluation_sampler", "train_sampler"]


Label = int | Sequence[int]


def class_weights(
    labels: Sequence[Label], num_classes: int, enabled: bool | str = True, device: torch.device | str | None = None
) -> torch.Tensor | None:
    """Loss weights inversely proportional to class frequency, with mean 1 over the classes.

    Where an image may have several classes: the ratio of negative to positive images of each class, by which a
    positive answer then counts (``pos_weight``).

    Args:
        labels: class numbers of the training set, or a list of 0 and 1 for each image.
        num_classes: number of classes; every one must occur.
        enabled: False gives None, which losses take as "unweighted".
        device: where the result lives.

    Returns:
        (num_classes,) float32, or None.

    Raises:
        DataError: a class does not occur, every image has it, or a label does not fit ``num_classes``.

    Example:
        >>> class_weights([0, 0, 0, 1], 2)
        tensor([0.5000, 1.5000])
        >>> class_weights([[1, 0], [0, 0], [1, 1], [0, 0]], 2)
        tensor([1., 3.])
    """
    if not is_on(enabled, "class_weights"):
        return None
    if _several(labels):
        positives = _positive_counts(labels, num_classes).double()
        return ((len(labels) - positives) / positives).float().to(device)
    inverse = 1.0 / _class_counts(labels, num_classes).double()
    return (inverse / inverse.mean()).float().to(device)


def train_sampler(
    labels: Sequence[Label], balanced: bool | str = False, seed: int = 0, distributed: bool | None = None
) -> Sampler[int] | None:
    """The sampler of a training loader; None stands for the loader's own shuffling.

    Args:
        labels: class numbers of the training set, one per item, or lists of 0 and 1.
        balanced: draw with replacement so that classes come equally often.
        seed: makes the draws reproducible; they differ from epoch to epoch.
        distributed: share the items between processes; None: whether a process group exists.

    Raises:
        ConfigError: ``balanced`` where an image may have several classes: they cannot all be made equally frequent.
        DataError: ``balanced`` with an absent class below the largest label.

    Example:
        >>> sampler = train_sampler([0, 0, 0, 0, 1], balanced=True, seed=1)
        >>> len(list(sampler))
        5
        >>> train_sampler([0, 1]) is None
        True
    """
    shared = _in_process_group() if distributed is None else distributed
    if not is_on(balanced, "balanced"):
        return DistributedSampler(labels, shuffle=True, seed=seed) if shared else None
    if _several(labels):
        raise ConfigError(
            "balanced_sampling needs one class an image, with task multilabel an image may have several",
            remedy="use --class_weights true instead, which weights the rare classes in the loss",
        )
    numbers = [int(label) for label in labels]  # type: ignore[arg-type] # one class an image
    counts = _class_counts(numbers, max(numbers) + 1)
    weights = [1.0 / float(counts[label]) for label in numbers]
    rank = dist.get_rank() if shared else 0
    generator = torch.Generator().manual_seed(seed + rank)
    if shared:
        return DistributedWeightedRandomSampler(labels, weights, seed=seed, generator=generator)
    return WeightedRandomSampler(weights, len(weights), replacement=True, generator=generator)


def evaluation_sampler(dataset: Sized, distributed: bool | None = None) -> Sampler[int] | None:
    """The sampler of a validation or test loader: every item once, shared between the processes.

    Args:
        dataset: what the loader reads.
        distributed: None: whether a process group exists.

    Example:
        >>> evaluation_sampler([1, 2, 3]) is None
        True
    """
    shared = _in_process_group() if distributed is None else distributed
    return DistributedSampler(dataset, even_divisible=False, shuffle=False) if shared else None


def _in_process_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _several(labels: Sequence[Label]) -> bool:
    return len(labels) > 0 and isinstance(labels[0], Sequence)


def _positive_counts(labels: Sequence[Label], num_classes: int) -> torch.Tensor:
    """(num_classes,) numbers of images that have each class; none is 0 or all."""
    values = torch.as_tensor(labels)
    if values.ndim != 2 or values.shape[1] != num_classes:
        raise DataError(f"labels of shape {tuple(values.shape)}, {num_classes} classes", where="class balance")
    counts = values.sum(0)
    odd = [index for index, count in enumerate(counts.tolist()) if count in (0, len(values))]
    if odd:
        raise DataError(
            f"no training item or every one has class number {', '.join(map(str, odd))}",
            where="class balance",
            remedy="add items with and without this class, drop it, or train without class weights",
        )
    return counts


def _class_counts(labels: Sequence[Any], num_classes: int) -> torch.Tensor:
    """(num_classes,) int64 counts, all positive."""
    values = torch.as_tensor(list(labels), dtype=torch.int64)
    if values.numel() == 0:
        raise DataError("the training set is empty", where="class balance")
    if int(values.min()) < 0 or int(values.max()) >= num_classes:
        raise DataError(
            f"labels run from {int(values.min())} to {int(values.max())}; there are {num_classes} classes",
            where="class balance",
        )
    counts = torch.bincount(values, minlength=num_classes)
    absent = [index for index, count in enumerate(counts.tolist()) if count == 0]
    if absent:
        raise DataError(
            f"no training item of class number {', '.join(map(str, absent))}",
            where="class balance",
            remedy="add items of this class, drop it, or train without class weights and balanced sampling",
        )
    return counts
