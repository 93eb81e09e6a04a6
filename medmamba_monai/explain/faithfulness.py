"""Whether a map says what the network looks at. Imports the modules of this package.

Deletion and insertion are those of RISE (arXiv 1806.07421): patches of the image are covered in the order of the map,
the highest first, and the class's probability is followed (a good map makes it fall fast); or they appear on a covered
image in that order (a good map makes it rise fast). That the maps of a network with random weights differ is the sanity
check of arXiv 1810.03292.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..networks import MedMamba
from .passes import studied
from .score import probabilities

__all__ = ["Faithfulness", "deletion_insertion", "peak_inside", "rank_correlation", "with_random_weights"]


class Faithfulness(NamedTuple):
    """Both curves and the areas under them, for each image.

    Attributes:
        deletion: (B,) area, 0 to 1, lower is better.
        insertion: (B,) area, higher is better.
        deletion_curve: (B, steps + 1) probability of the class when 0 to all of the patches are covered.
        insertion_curve: (B, steps + 1) probability when 0 to all of the patches are shown.
    """

    deletion: Tensor
    insertion: Tensor
    deletion_curve: Tensor
    insertion_curve: Tensor

    @property
    def score(self) -> Tensor:
        """Insertion minus deletion, (B,): 0 for an order that knows nothing, up to 1."""
        return self.insertion - self.deletion


def deletion_insertion(
    network: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor,
    task: str = "multiclass",
    patch: int = 4,
    steps: int = 16,
    batch_size: int = 64,
) -> Faithfulness:
    """Follow the class's probability while patches are covered by the image's mean, and while they appear on it.

    Args:
        network: any classifier.
        images: (B, C, *spatial).
        maps: (B, 1, *spatial), higher where the class is supported.
        targets: (B,) class numbers.
        task: see :func:`~.score.log_odds`.
        patch: side of the patches that are covered as one, in pixels. Single pixels would test how the network
            takes noise.
        steps: intervals of the curves.
        batch_size: images in a pass.

    Raises:
        ConfigError: maps of another size than the images, patches larger than they are, or fewer than one step.
    """
    if maps.shape != (images.shape[0], 1, *images.shape[2:]) or steps < 1 or not 1 <= patch <= min(images.shape[2:]):
        raise ConfigError(
            f"maps {tuple(maps.shape)}, images {tuple(images.shape)}, {steps} steps, patches of {patch}",
            remedy="give a map (B, 1, *spatial) for each image, at least one step, and patches within the image",
        )
    plain = images.detach().as_subclass(Tensor).float()
    covered = plain.mean(tuple(range(2, plain.dim())), keepdim=True).expand_as(plain)
    ranks = _patch_ranks(maps, patch)  # (B, 1, *spatial), 0 for the first patch to go, towards 1
    curves: dict[str, list[Tensor]] = {"deletion": [], "insertion": []}
    with studied(network, images), torch.no_grad():
        for share in torch.linspace(0, 1, steps + 1, dtype=ranks.dtype).tolist():
            first = ranks < share
            mixed = {"deletion": torch.where(first, covered, plain), "insertion": torch.where(first, plain, covered)}
            for name, inputs in mixed.items():
                found = torch.cat([probabilities(network(part), task) for part in inputs.split(batch_size)])
                curves[name].append(found.gather(1, targets[:, None])[:, 0])
    deleted, inserted = torch.stack(curves["deletion"], 1), torch.stack(curves["insertion"], 1)
    return Faithfulness(_area(deleted), _area(inserted), deleted, inserted)


def _area(curve: Tensor) -> Tensor:
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


def _patch_ranks(maps: Tensor, patch: int) -> Tensor:
    """Rank of each pixel's patch by its mean, from 0 (highest) towards 1, in the shape of the maps."""
    pool = F.avg_pool2d if maps.dim() == 4 else F.avg_pool3d
    means = pool(maps.detach().as_subclass(Tensor), patch, ceil_mode=True, count_include_pad=False)
    flat = means.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(flat.shape[1], device=flat.device, dtype=flat.dtype) / flat.shape[1]
    ranks = torch.empty_like(flat).scatter_(1, order, places.expand_as(flat)).view_as(means)
    for axis in range(2, ranks.dim()):
        ranks = ranks.repeat_interleave(patch, axis).narrow(axis, 0, maps.shape[axis])
    return ranks


def peak_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """The pointing game (arXiv 1608.00507): whether each map's highest value lies in its mask.

    Args:
        maps: (B, 1, *spatial).
        masks: bool, same shape.

    Returns:
        (B,) bool. A map without a peak, all values equal, points nowhere.
    """
    flat = maps.flatten(1)
    found = masks.flatten(1).gather(1, flat.argmax(1, keepdim=True))[:, 0]
    return found & (flat.amax(1) > flat.amin(1))


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's correlation of each pair of maps (B, 1, *spatial), (B,); NaN where a map is constant."""
    from scipy.stats import spearmanr

    pairs = zip(maps.flatten(1).cpu().numpy(), others.flatten(1).cpu().numpy(), strict=True)
    return torch.tensor([float(spearmanr(a, b).statistic) if a.std() and b.std() else float("nan") for a, b in pairs])


def with_random_weights(network: MedMamba, seed: int) -> MedMamba:
    """A network of the same sizes with freshly initialised weights, in evaluation mode: it has learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = MedMamba(**copy.deepcopy(network.config))
    reference = next(network.parameters())
    return fresh.to(reference.device, reference.dtype).eval()
