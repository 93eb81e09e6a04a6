"""The network: sizes, features, heads, checkpointing, scripting, export, and its messages."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from medmamba_monai.errors import ConfigError
from medmamba_monai.networks import MedMamba
from medmamba_monai.ops import SCANS

SMALL: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64), "num_classes": 3}
SMALL_3D: dict[str, Any] = {**SMALL, "spatial_dims": 3, "in_channels": 1}


def sensitive(network: MedMamba) -> MedMamba:
    """Give the scan weight: at its initialisation it hardly moves the output."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            scale = parameter.flatten(1).shape[1] ** -0.5
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return network


def test_padding_looks_at_every_pixel_and_cropping_does_not() -> None:
    image = torch.zeros(1, 3, 35, 37, requires_grad=True)
    for odd_size, all_seen in [("pad", True), ("crop", False)]:
        network = sensitive(MedMamba(**SMALL, odd_size=odd_size)).eval()
        (grad,) = torch.autograd.grad(network(image + 0.1).sum(), image)
        assert bool(grad[0, :, -1].abs().max() > 0) == all_seen
        assert bool(grad[0, :, :, -1].abs().max() > 0) == all_seen


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 100)])
def test_features_are_channels_first_at_four_strides(size: tuple[int, int]) -> None:
    network = MedMamba(**SMALL).eval()
    features = network.forward_features(torch.rand(2, 3, *size))
    strides = [(-(-size[0] // s), -(-size[1] // s)) for s in (4, 8, 16, 32)]
    assert [tuple(f.shape) for f in features] == [(2, c, *s) for c, s in zip((8, 16, 32, 64), strides, strict=True)]
    pooled = features[-1].mean((2, 3))
    network.reset_head(0)
    image = torch.rand(2, 3, *size)
    assert torch.allclose(network(image), network.forward_features(image)[-1].mean((2, 3)), atol=1e-6)
    assert pooled.shape == (2, 64)


def test_three_dimensions_use_six_directions_and_all_axes() -> None:
    network = sensitive(MedMamba(**SMALL_3D)).eval()
    assert network.stages[0].blocks[0].mixer.directions == 6
    volume = torch.rand(1, 1, 32, 40, 36)
    assert [tuple(f.shape[2:]) for f in network.forward_features(volume)] == [
        (8, 10, 9), (4, 5, 5), (2, 3, 3), (1, 2, 2),
    ]  # fmt: skip
    base = network(volume)
    for turned in (volume.transpose(2, 3), volume.flip(4)):
        assert not torch.allclose(network(turned), base, atol=1e-4)


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("options", [SMALL, SMALL_3D], ids=["2d", "3d"])
def test_every_scan_trains(options: dict[str, Any], scan: str) -> None:
    network = MedMamba(**options, scan=scan)
    shape = (2, network.in_channels) + (32,) * network.spatial_dims
    network(torch.rand(shape)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_checkpointing_changes_neither_gradients_nor_statistics() -> None:
    plain = MedMamba(**SMALL, drop_path_rate=0.5)
    saving = MedMamba(**SMALL, drop_path_rate=0.5, gradient_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    image = torch.rand(4, 3, 40, 32)
    for network in (plain, saving):
        torch.manual_seed(5)
        network(image).square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), saving.buffers(), strict=True))
    assert saving.stages[0].blocks[0].conv_branch.norm1.num_batches_tracked == 1


def test_a_checkpointed_graph_may_be_walked_twice() -> None:
    network = MedMamba(**SMALL, gradient_checkpointing=True)
    loss = network(torch.rand(4, 3, 40, 32)).square().sum()
    loss.backward(retain_graph=True)
    once = network.head.weight.grad.clone()
    loss.backward()
    assert torch.allclose(network.head.weight.grad, 2 * once)
    assert network.stages[0].blocks[0].conv_branch.norm1.num_batches_tracked == 1


def test_reset_head_keeps_the_rest() -> None:
    network = MedMamba(**SMALL)
    before = copy.deepcopy(network.patch_embed.state_dict())
    network.reset_head(7)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert network.config["num_classes"] == network.num_classes == 7
    assert all(torch.equal(before[k], v) for k, v in network.patch_embed.state_dict().items())
    with pytest.raises(ConfigError, match="-1"):
        network.reset_head(-1)


def test_config_rebuilds_the_network() -> None:
    network = MedMamba(**SMALL, scan="hilbert", odd_size="crop", d_state=4)
    again = MedMamba(**network.config)
    assert again.config == network.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_initialisation_of_the_scan() -> None:
    mixer = MedMamba(**SMALL).stages[1].blocks[0].mixer
    steps = torch.nn.functional.softplus(mixer.dt_bias)
    assert steps.min() >= 1e-4 * 0.999
    assert steps.max() <= 0.1 * 1.001
    assert torch.allclose(mixer.A_log.exp(), torch.arange(1.0, 17.0).expand_as(mixer.A_log))
    assert (mixer.D == 1).all()
    assert mixer.dt_weight.abs().max() <= mixer.dt_rank**-0.5


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    from medmamba_monai.networks.layers import DropPath

    layer = DropPath(0.25)
    torch.manual_seed(0)
    y = layer(torch.ones(4000, 2, 2))
    assert set(y.flatten().tolist()) == {0.0, 1 / 0.75} or torch.allclose(y[y > 0], torch.tensor(1 / 0.75))
    assert (y.flatten(1).std(1) == 0).all()
    assert abs(y.mean().item() - 1) < 0.05
    assert torch.equal(layer.eval()(y), y)


@pytest.mark.parametrize("options", [SMALL, SMALL_3D], ids=["2d", "3d"])
def test_scripts_and_serves_other_sizes(options: dict[str, Any]) -> None:
    network = sensitive(MedMamba(**options)).eval()
    scripted = torch.jit.script(network)
    for size in (32, 45):
        image = torch.rand((2, network.in_channels) + (size,) * network.spatial_dims)
        assert torch.allclose(scripted(image), network(image), rtol=1e-4, atol=1e-4)


def test_scripts_and_exports_in_bfloat16() -> None:
    """Weights and images in bfloat16: the exported scan keeps its states in float32, too."""
    network = sensitive(MedMamba(**SMALL)).eval().bfloat16().requires_grad_(False)
    image = torch.rand(2, 3, 36, 32).bfloat16()
    want = network(image)
    for other in (torch.jit.script(network), torch.export.export(network, (image,)).module()):
        got = other(image)
        assert got.dtype == torch.bfloat16
        assert (got - want).abs().max() <= 2e-2 * want.abs().max()


@pytest.mark.parametrize("options", [SMALL, SMALL_3D], ids=["2d", "3d"])
def test_logits_under_autocast(options: dict[str, Any]) -> None:
    """In bfloat16 within 4e-2 of the largest logit, measured 2e-2 in 2-D and 6e-3 in 3-D; images differ by far more."""
    torch.manual_seed(0)
    network = sensitive(MedMamba(**options)).eval()
    images = torch.rand((4, network.in_channels) + (40,) * network.spatial_dims)
    exact = copy.deepcopy(network).double()
    with torch.inference_mode():
        want = exact(images.double())
        for each in (network, network.optimize_for_inference()):
            with torch.autocast("cpu", torch.bfloat16):
                got = each(images)
            assert got.dtype == torch.bfloat16
            assert (got - want).abs().max() <= 4e-2 * want.abs().max()
    assert (want[0] - want[1]).abs().max() > 8e-2 * want.abs().max()


@pytest.mark.parametrize("mode", ["train", "eval", "folded"])
@pytest.mark.parametrize("options", [SMALL, SMALL_3D], ids=["2d", "3d"])
def test_convolutions_of_blocks_read_channels_last(options: dict[str, Any], mode: str) -> None:
    """Dense in the conv branch; of the mixer's projection half the channels, where they are."""
    network = MedMamba(**options, scan_backend="portable").train(mode == "train")  # so that PyTorch convolves
    if mode == "folded":
        network = network.optimize_for_inference()
    form = torch.channels_last if network.spatial_dims == 2 else torch.channels_last_3d
    seen: dict[str, bool] = {}
    for name, module in network.stages.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):

            def look(_: object, inputs: tuple[torch.Tensor], name: str = name) -> None:
                (x,) = inputs
                seen[name] = x.stride(1) == 1 if "mixer" in name else x.is_contiguous(memory_format=form)

            module.register_forward_pre_hook(look)
    network(torch.rand((2, network.in_channels) + (72,) * network.spatial_dims))
    assert len(seen) == 4 * 4
    assert [name for name, fits in seen.items() if not fits] == []


def test_exports_with_dynamic_batch_in_aten_only() -> None:
    network = sensitive(MedMamba(**SMALL)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (torch.rand(2, 3, 36, 32),), dynamic_shapes={"x": {0: batch}})
    assert not any("medmamba" in str(node.target) for node in program.graph.nodes)
    image = torch.rand(5, 3, 36, 32)
    assert torch.allclose(program.module()(image), network(image), rtol=1e-4, atol=1e-4)


def test_compiles_without_graph_break() -> None:
    network = sensitive(MedMamba(**SMALL)).eval()
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")(image)
        assert torch.allclose(compiled, network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 31, 64), "under 32"),
        ((1, 1, 64, 64), "1 channels, expected 3"),
        ((3, 64, 64), r"3 axes, expected \(B, 3, H, W\)"),
        ((1, 3, 32, 32, 32), r"5 axes, expected \(B, 3, H, W\)"),
    ],
)
def test_unusable_inputs_are_named_before_any_convolution(shape: tuple[int, ...], message: str) -> None:
    network = MedMamba(**SMALL).eval()
    network.patch_embed.proj.forward = None  # type: ignore[method-assign,assignment]
    with pytest.raises(ConfigError, match=message):
        network(torch.rand(shape))


def test_a_batch_that_batch_norm_cannot_train_on() -> None:
    network = MedMamba(**SMALL)
    with pytest.raises(ConfigError, match="batch normalisation"):
        network(torch.rand(1, 3, 32, 32))
    network(torch.rand(1, 3, 33, 32))
    network(torch.rand(2, 3, 32, 32))
    with pytest.raises(ConfigError, match="batch normalisation"):
        MedMamba(**SMALL, odd_size="crop")(torch.rand(1, 3, 63, 40))
    network.eval()(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    "wrong",
    [
        {"depths": (1, 1, 1)},
        {"depths": (1, 0, 1, 1)},
        {"dims": (7, 14, 28, 56)},
        {"dims": (8, 16, 24, 48)},
        {"scan": "spiral"},
        {"spatial_dims": 1},
        {"odd_size": "stretch"},
        {"num_classes": -1},
        {"d_state": 0},
        {"drop_path_rate": 1.0},
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))[:3].strip("(")):
        MedMamba(**{**SMALL, **wrong})
