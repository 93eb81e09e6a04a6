"""The folded and packed network equals the one it was made from, and stays scriptable and exportable."""

from __future__ import annotations

import copy
import io
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from medmamba_monai.errors import ConfigError
from medmamba_monai.networks import MedMamba
from medmamba_monai.networks.inference import FoldedConvBranch, PackedModule
from medmamba_monai.ops.selective_scan import cpu, dispatch, packed
from medmamba_monai.ops.selective_scan.packed import Packed, PackedChain
from medmamba_monai.ops.selective_scan.packed_block import PackedBlock

SMALL: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64), "num_classes": 3}
# halves of the channels are multiples of 16: every part has a packed twin
PACKED: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (32, 64, 128, 256), "num_classes": 3}
MISSING = cpu.unavailable(torch.device("cpu"))
needs_library = pytest.mark.skipif(MISSING is not None, reason=f"C library: {MISSING}")


def trained(**options: Any) -> MedMamba:
    """A network whose batch norms have statistics, scales and shifts of their own."""
    torch.manual_seed(0)
    network = MedMamba(**{**SMALL, **options})
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.weight, 1, 0.3)
            torch.nn.init.normal_(module.bias)
    return network.eval()


def twins(network: MedMamba) -> list[PackedModule]:
    return [module for module in network.modules() if isinstance(module, PackedModule)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Packed]:
    """The packed twins that served, in order."""
    served: list[Packed] = []
    call = PackedChain.__call__
    monkeypatch.setattr(PackedChain, "__call__", lambda self, x: (served.extend(self.parts), call(self, x))[1])
    return served


@pytest.mark.parametrize(
    "options",
    [{}, {"spatial_dims": 3, "in_channels": 1}, PACKED, {**PACKED, "odd_size": "crop", "scan": "zigzag"}],
    ids=["2d", "3d", "packed", "packed, cropped"],
)
def test_outputs_are_equal(options: dict[str, Any]) -> None:
    network = trained(**options)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    image = torch.rand((2, network.in_channels) + (36,) * network.spatial_dims)
    fast = network.optimize_for_inference()
    pairs = zip(fast.forward_features(image), network.forward_features(image), strict=True)
    assert all((a - b).abs().max() <= 1e-4 * b.abs().max() for a, b in pairs)
    assert (fast(image) - network(image)).abs().max() <= 1e-4 * network(image).abs().max()
    assert not any(isinstance(m, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d) for m in fast.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(p.requires_grad for p in fast.parameters())


def test_a_norm_left_out_is_seen() -> None:
    network = trained()
    fast = network.optimize_for_inference()
    branch = fast.stages[0].blocks[0].conv_branch
    assert isinstance(branch, FoldedConvBranch)
    branch.shift.zero_()
    image = torch.rand(2, 3, 36, 36)
    a, b = fast.forward_features(image)[0], network.forward_features(image)[0]
    assert (a - b).abs().max() > 1e-2 * b.abs().max()


@pytest.mark.parametrize("options", [{}, PACKED], ids=["folded", "packed"])
def test_scripts_and_exports(options: dict[str, Any]) -> None:
    fast = trained(**options).optimize_for_inference()
    image = torch.rand(2, 3, 32, 40)
    expected = fast(image)
    assert torch.allclose(torch.jit.script(fast)(image), expected, rtol=1e-4, atol=1e-5)
    program = torch.export.export(fast, (image,))
    assert torch.allclose(program.module()(image), expected, rtol=1e-4, atol=1e-5)


def test_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="training mode"):
        MedMamba(**SMALL).optimize_for_inference()


@needs_library
def test_every_part_is_packed_and_serves(calls: list[Packed]) -> None:
    fast = trained(**PACKED).optimize_for_inference()
    assert len(twins(fast)) == 1 + 3 + 4
    calls.clear()
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context():
            fast(torch.rand(1, 3, 40, 33))
    assert [twin.packed for twin in twins(fast)] * 3 == calls


@needs_library
def test_what_the_library_does_not_serve_goes_through_the_modules(calls: list[Packed]) -> None:
    class Subclass(Tensor):
        pass

    network = trained(**PACKED)
    fast, image = network.optimize_for_inference(), torch.rand(1, 3, 40, 33)
    calls.clear()
    wanted = image.clone().requires_grad_()
    fast(wanted).sum().backward()
    expected = image.clone().requires_grad_()
    network(expected).sum().backward()
    assert torch.allclose(wanted.grad, expected.grad, rtol=1e-3, atol=1e-5)
    assert isinstance(fast(image.as_subclass(Subclass)), Subclass)
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(image).dtype == torch.bfloat16
    assert fast.double()(image.double()).dtype == torch.float64
    assert torch.allclose(fast(image.double()), network(image).double(), rtol=1e-4, atol=1e-5)
    assert calls == []


@needs_library
def test_parts_may_be_replaced_and_added() -> None:
    fast, image = trained(**{**PACKED, "depths": (1, 2, 1, 1)}).optimize_for_inference(), torch.rand(2, 3, 40, 33)
    expected, stage = fast(image), cast(Any, fast.stages[1])
    block = stage.blocks[1]
    for other in (torch.nn.Identity(), torch.nn.Softmax(-1)):
        stage.blocks[1] = other
        assert not torch.allclose(fast(image), expected)
    stage.blocks[1] = block
    assert torch.equal(fast(image), expected)
    stage.blocks.append(torch.nn.Softmax(-1))
    assert not torch.allclose(fast(image), expected)


@needs_library
def test_one_call_and_one_for_each_part_are_equal(calls: list[Packed], monkeypatch: pytest.MonkeyPatch) -> None:
    """One call for a few images, with maps between the parts in its workspace; more images go part by part."""
    monkeypatch.setattr(cpu, "empty", lambda shape: torch.full(tuple(shape), torch.nan))
    monkeypatch.delattr(packed._kept, "memory", raising=False)
    fast, images = trained(**{**PACKED, "depths": (2, 1, 3, 1)}).optimize_for_inference(), torch.rand(3, 3, 70, 49)
    counts = []
    chain = PackedChain.__call__
    monkeypatch.setattr(PackedChain, "__call__", lambda self, x: (counts.append(len(self.parts)), chain(self, x))[1])
    expected = fast(images)
    assert counts == [11]
    monkeypatch.setattr(packed, "_TOGETHER", 1)
    assert torch.equal(fast(images), expected)
    assert counts[1:] == [1] * 11
    assert torch.allclose(fast(images[:1]), expected[:1], rtol=1e-5)  # a head of one row rounds otherwise
    assert counts[12:] == [11]


@needs_library
def test_hooks_on_parts_see_what_passes() -> None:
    fast, image = trained(**{**PACKED, "depths": (1, 2, 1, 1)}).optimize_for_inference(), torch.rand(2, 3, 40, 33)
    expected = fast(image)
    seen: list[torch.Size] = []
    stage: Any = fast.stages[1]
    handles = [
        stage.merge.register_forward_hook(lambda module, inputs, output: seen.append(output.shape)),
        stage.blocks[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape)),
    ]
    assert torch.equal(fast(image), expected)
    assert seen == [(2, 5, 5, 64)] * 2
    for handle in handles:
        handle.remove()
    assert torch.equal(fast(image), expected)
    assert len(seen) == 2


@needs_library
def test_a_default_device_does_not_reach_the_library(calls: list[Packed]) -> None:
    network = trained(**PACKED).optimize_for_inference()
    x = torch.rand(1, 3, 40, 40)
    want = network(x)
    calls.clear()
    with torch.device("meta"):
        got = network(x)
    assert calls
    assert torch.equal(got, want)


def test_an_empty_batch_is_refused() -> None:
    network = trained(**PACKED)
    for each in (network, network.optimize_for_inference()):
        with pytest.raises(ConfigError, match="the batch is empty"):
            each(torch.zeros(0, 3, 40, 40))


def test_copies_and_files_keep_their_twins(calls: list[Packed]) -> None:
    fast, image = trained(**PACKED).optimize_for_inference(), torch.rand(1, 3, 32, 32)
    expected = fast(image)
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    for other in (copy.deepcopy(fast), torch.load(file, weights_only=False)):
        calls.clear()
        assert torch.equal(other(image), expected)
        assert len(calls) == 8
    fast.reset_head(5)
    assert fast(image).shape == (1, 5)
    assert len(twins(fast.optimize_for_inference())) == 8


@needs_library
def test_weights_cannot_be_loaded_behind_the_twins() -> None:
    fast = trained(**PACKED).optimize_for_inference()
    with pytest.raises(RuntimeError, match="load into the original network"):
        fast.load_state_dict(fast.state_dict())


@needs_library
def test_another_backend_by_name_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not twins(trained(**PACKED, scan_backend="portable").optimize_for_inference())
    assert len(twins(trained(**PACKED, scan_backend="cpu").optimize_for_inference())) == 8
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "reference")
    assert not twins(trained(**PACKED).optimize_for_inference())


def test_without_the_library_the_network_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "unavailable", lambda name, device: "not built" if name == "cpu" else None)
    network = trained(**PACKED)
    fast, image = network.optimize_for_inference(), torch.rand(1, 3, 32, 40)
    assert not twins(fast)
    assert torch.allclose(fast(image), network(image), rtol=1e-4, atol=1e-5)


@needs_library
def test_a_twin_that_computes_another_thing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    call = PackedBlock.__call__
    monkeypatch.setattr(PackedBlock, "__call__", lambda self, x: call(self, x) * (1 + 1e-3 * (self.half == 64)))
    network = trained(**PACKED)
    with pytest.warns(RuntimeWarning, match="SSConvSSMBlock differs from PyTorch by 1.0e-03") as caught:
        fast = network.optimize_for_inference()
    assert len(caught) == 1
    assert len(twins(fast)) == 7
    image = torch.rand(1, 3, 32, 40)
    assert torch.allclose(fast(image), network(image), rtol=1e-4, atol=1e-5)
