"""``explain`` as users call it."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai.errors import ConfigError
from medmamba_monai.explain import METHODS, explain

from .conftest import Convolutional, pictures, small


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("dims", "size"), [(2, (40, 33)), (3, (32, 33, 36))])
def test_every_method_makes_a_map_for_every_pixel(method: str, dims: int, size: tuple[int, ...]) -> None:
    network, images = small(dims), pictures(2, *size)
    found = explain(network, images, method, targets=[0, 2])
    assert found.maps.shape == (2, 1, *size)
    assert torch.isfinite(found.maps).all()
    assert not found.maps.requires_grad
    assert METHODS[method].signed or float(found.maps.min()) >= 0
    torch.testing.assert_close(found.probabilities, network(images).softmax(1).detach())


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_gives_what_its_images_give(method: str) -> None:
    network, images = small(), pictures(2, 32, 32)
    together = explain(network, images, method)
    for i in range(2):
        alone = explain(network, images[i : i + 1], method)
        torch.testing.assert_close(together.maps[i : i + 1], alone.maps, rtol=1e-3, atol=1e-5)
        assert together.targets[i] == alone.targets[0]


@pytest.mark.parametrize("method", METHODS)
def test_classes_are_explained_apart(method: str) -> None:
    network, images = small(), pictures(1, 48, 48)
    maps = [explain(network, images, method, targets=c, task="multilabel").maps for c in range(3)]
    assert not torch.allclose(maps[0], maps[1], rtol=0.1)
    assert not torch.allclose(maps[1], maps[2], rtol=0.1)


def test_with_sigmoids_other_classes_do_not_matter() -> None:
    network, images = small(), pictures(1, 32, 32)
    first = explain(network, images, "gradcam", targets=0, task="multilabel")
    with torch.no_grad():
        network.head.weight[1:] *= 3
    again = explain(network, images, "gradcam", targets=0, task="multilabel")
    torch.testing.assert_close(first.maps, again.maps)
    assert not torch.allclose(explain(network, images, "gradcam", targets=0).maps, again.maps)
    torch.testing.assert_close(again.probabilities, network(images).sigmoid().detach())


def test_other_networks_are_explained_by_a_named_layer_or_by_occlusion() -> None:
    network, images = Convolutional().eval(), pictures(2, 32, 32)
    assert explain(network, images, "gradcam++", layer="features.3").maps.shape == (2, 1, 32, 32)
    assert explain(network, images, "occlusion", patch=16).maps.shape == (2, 1, 32, 32)
    with pytest.raises(ConfigError, match="layer"):
        explain(network, images, "gradcam")


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("saliency", {}, "use one of gradcam"),
        ("gradcam", {"patch": 4}, "no option 'patch'"),
        ("gradcam", {"task": "regression"}, "multilabel"),
        ("gradcam", {"targets": 7}, "3 classes"),
    ],
)
def test_mistakes_are_named(method: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        explain(small(), pictures(1, 32, 32), method, **options)  # type: ignore[arg-type]
