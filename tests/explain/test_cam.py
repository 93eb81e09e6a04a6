"""Class activation maps against finite differences, MONAI on a channels-first network, and MONAI's mistake on ours."""

from __future__ import annotations

import pytest
import torch
from monai.visualize import GradCAM, GradCAMpp
from torch import Tensor, nn

from medmamba_monai import MedMamba
from medmamba_monai.errors import ConfigError
from medmamba_monai.explain.cam import class_activation_map, default_stage
from medmamba_monai.explain.geometry import STRIDES, to_pixels
from medmamba_monai.explain.passes import studied
from medmamba_monai.explain.score import log_odds

from .conftest import Convolutional, pictures, small


def ours(network: nn.Module, images: Tensor, targets: list[int], **options: object) -> Tensor:
    with studied(network, images) as leaf:
        return class_activation_map(network, leaf, torch.tensor(targets), **options)  # type: ignore[arg-type]


def by_finite_differences(network: MedMamba, image: Tensor, target: int, stage: int, step: float = 1e-4) -> Tensor:
    """Grad-CAM of one image without autograd or hooks: a channel's weight is what raising it everywhere does."""
    with torch.no_grad():
        cells = network.patch_embed(image)
        for part in network.stages[: stage + 1]:
            cells = part(cells)

        def score(map_: Tensor) -> Tensor:
            for part in network.stages[stage + 1 :]:
                map_ = part(map_)
            return log_odds(network.head(map_.flatten(1, -2).mean(1)), torch.tensor([target]))[0]

        weighted = torch.zeros_like(cells[..., 0])
        for channel in range(cells.shape[-1]):
            raised = torch.zeros_like(cells)
            raised[..., channel] = step
            weight = (score(cells + raised) - score(cells - raised)) / (2 * step) / weighted.numel()
            weighted += weight * cells[..., channel]
    return to_pixels(weighted.clamp_min(0)[:, None], STRIDES[stage], image.shape[2:])


@pytest.mark.parametrize("stage", [0, 2])
@pytest.mark.parametrize(("dims", "size"), [(2, (64, 41)), (3, (32, 40, 33))])
def test_agrees_with_finite_differences(dims: int, size: tuple[int, ...], stage: int) -> None:
    network = small(dims).double()
    image = pictures(1, *size).double()
    torch.testing.assert_close(
        ours(network, image, [1], layer=stage), by_finite_differences(network, image, 1, stage), rtol=1e-5, atol=1e-8
    )


def test_a_plain_monai_hook_is_wrong_in_silence() -> None:
    """Right shape, no warning, other content: the reason why this module exists."""
    network, image = small().double(), pictures(1, 64, 64).double()
    right = by_finite_differences(network, image, 1, 1)

    def plain(x: Tensor) -> Tensor:
        return x

    theirs = GradCAM(network, "stages.1", postprocessing=plain)(image, class_idx=1).detach()
    assert theirs.shape == right.shape
    together = torch.corrcoef(torch.stack([theirs.flatten(), right.flatten()]))[0, 1]
    assert abs(float(together)) < 0.9
    assert torch.corrcoef(torch.stack([ours(network, image, [1], layer=1).flatten(), right.flatten()]))[0, 1] > 0.999


@pytest.mark.parametrize("plus_plus", [False, True])
def test_reproduces_monai_on_a_channels_first_network(plus_plus: bool) -> None:
    """One sigmoid output, so that both explain the logit; MONAI's 1e-7 in a denominator is the tolerance."""
    network, image = Convolutional(1).eval(), pictures(1, 32, 24)
    their_class = GradCAMpp if plus_plus else GradCAM
    network.features[3].register_forward_hook(lambda module, given, output: output.relu())  # a paper's map is positive
    found = ours(network, image, [0], layer="features.3", plus_plus=plus_plus)
    theirs = their_class(network, "features.3", postprocessing=lambda x: x)(image, class_idx=0).detach()
    if plus_plus:  # MONAI's carries exp(score), a factor that all channels share
        theirs, found = theirs / theirs.max(), found / found.max()
    torch.testing.assert_close(found, theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("plus_plus", [False, True])
def test_a_batch_gives_what_its_images_give(plus_plus: bool) -> None:
    network, images, targets = small(), pictures(3, 48, 64), [2, 0, 1]
    together = ours(network, images, targets, plus_plus=plus_plus)
    single = [ours(network, images[i : i + 1], targets[i : i + 1], plus_plus=plus_plus) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(single), rtol=1e-4, atol=1e-6)
    assert len({tuple(image.flatten().tolist()) for image in together}) == 3


def test_monai_mixes_a_batch_with_a_class_for_each_image() -> None:
    network, images = Convolutional().eval(), pictures(2, 32, 32)
    plain = {"nn_module": network, "target_layers": "features.3", "postprocessing": lambda x: x}
    together = GradCAM(**plain)(images, class_idx=torch.tensor([0, 2])).detach()
    alone = GradCAM(**plain)(images[:1], class_idx=0).detach()
    assert not torch.allclose(together[:1], alone, rtol=1e-2)


def test_nothing_is_left_behind_in_the_network() -> None:
    network = small()
    before = [len(module._forward_hooks) for module in network.modules()]
    ours(network, pictures(1, 32, 32), [0])
    assert [len(module._forward_hooks) for module in network.modules()] == before
    assert all(weight.grad is None for weight in network.parameters())


def test_an_optimized_network_gives_the_same_maps() -> None:
    network, images = small(), pictures(1, 64, 64)
    torch.testing.assert_close(
        ours(network.optimize_for_inference(), images, [1]), ours(network, images, [1]), rtol=1e-3, atol=1e-5
    )


def test_the_default_stage_keeps_seven_cells() -> None:
    assert [default_stage((side, side)) for side in (32, 64, 112, 224)] == [0, 1, 2, 3]


@pytest.mark.parametrize("layer", [4, -1, "stages.0"])
def test_a_stage_that_does_not_exist_is_refused(layer: object) -> None:
    with pytest.raises(ConfigError, match="0 to 3"):
        ours(small(), pictures(1, 32, 32), [0], layer=layer)


class _ChannelsLast(Convolutional):
    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.turn(self.features(x).movedim(1, -1)).mean((1, 2)))


@pytest.mark.parametrize(
    ("network", "layer", "said"),
    [
        (Convolutional(), None, "features.3"),
        (Convolutional(), "nowhere", "no layer 'nowhere'"),
        (Convolutional(), "head", "not \\(B, C"),
        (_ChannelsLast(), "turn", "not \\(B, C"),
    ],
)
def test_layers_of_other_networks_that_are_no_maps_are_refused(network: nn.Module, layer: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ours(network.eval(), pictures(1, 64, 64), [0], layer=layer)
