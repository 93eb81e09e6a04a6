"""Random strengths of histological stains, for training. Imports errors; needs monai. Used by configs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from medmamba_monai.errors import ConfigError, DataError

__all__ = ["RandStainJitterd", "scale_stains"]

# optical densities of haematoxylin, eosin and DAB (rows) in red, green and blue: Ruifrok AC, Johnston DA.
# Quantification of histochemical staining by color deconvolution. Anal Quant Cytol Histol 23(4), 2001
_STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], dtype=torch.float64)
_DARKEST = 1 / 255


def scale_stains(image: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Multiply the amount of each stain in an RGB picture of a slide; unstained white stays white.

    Args:
        image: (3, *spatial) in [0, 1]; values below 1/255 count as 1/255, whose density is finite.
        factors: (3,) for haematoxylin, eosin and what neither explains.

    Returns:
        (3, *spatial) in [0, 1], of the image's type.

    Example:
        >>> white = torch.ones(3, 2, 2)
        >>> torch.equal(scale_stains(white, torch.tensor([2.0, 0.5, 1.0])), white)
        True
    """
    mixing = torch.linalg.inv(_STAINS) @ torch.diag(factors.double()) @ _STAINS
    density = -image.clamp(_DARKEST, 1).log()
    changed = torch.einsum("io,i...->o...", mixing.to(image), density)
    return (-changed).exp().clamp(0, 1)


class RandStainJitterd(RandomizableTransform, MapTransform):
    """Random stain strengths, as slides of other laboratories have: colours change as stains change them.

    The picture is taken apart into stains by colour deconvolution and each is multiplied by a factor of its own
    (Tellez D et al. Whole-Slide Mitosis Detection in H&E Breast Histology Using PHH3 as a Reference to Train
    Distilled Stain-Invariant Convolutional Networks. IEEE TMI 37(9), 2018).

    Args:
        keys: keys of the pictures, tensors (3, *spatial).
        prob: probability of a change.
        strength: factors are drawn from 1 - strength to 1 + strength.
        subtrahend: with ``divisor``, the normalisation the pictures have gone through: it is undone, and done
            again afterwards.
        divisor: see ``subtrahend``.
        allow_missing_keys: do nothing for an absent key.

    Raises:
        ConfigError: ``strength`` is not from 0 to below 1, or the divisor is 0.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        strength: float = 0.3,
        subtrahend: float = 0.0,
        divisor: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if not 0 <= strength < 1 or divisor == 0:
            raise ConfigError(
                f"strength={strength}, divisor={divisor}",
                where="RandStainJitterd",
                remedy="give a strength from 0 to below 1 and the divisor of the normalisation",
            )
        self.strength, self.subtrahend, self.divisor = strength, subtrahend, divisor
        self.factors = np.ones(3)

    def randomize(self, data: Any = None) -> None:
        """Draw whether to change the pictures of an item, and the factors."""
        super().randomize(None)
        if self._do_transform:
            self.factors = self.R.uniform(1 - self.strength, 1 + self.strength, 3)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with changed pictures.

        Raises:
            DataError: a picture has not three channels.
        """
        item = dict(data)
        self.randomize()
        if not self._do_transform:
            return item
        factors = torch.as_tensor(self.factors)
        for key in self.key_iterator(item):
            image = torch.as_tensor(item[key])
            if image.shape[0] != 3:
                raise DataError(
                    f"stains need RGB, this has {image.shape[0]} channels",
                    where=f"key {key!r}",
                    remedy="read the images with color rgb, or take RandStainJitterd out of train::random_transforms",
                )
            changed = scale_stains(image * self.divisor + self.subtrahend, factors)
            item[key] = (changed - self.subtrahend) / self.divisor
        return item
