"""Parity with the released network: logits, loss and every gradient, and planted errors that must be seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medmamba_monai.networks import MedMamba, from_released_state_dict, load_weights, to_released_state_dict
from medmamba_monai.networks.layers import PatchMerging
from medmamba_monai.networks.released import convert_names
from medmamba_monai.ops.selective_scan import dispatch, portable

SIZES = ["64x64", "96x64", "72x88"]


def usable() -> list[str]:
    return [name for name in dispatch.BACKENDS if dispatch.unavailable(name, "cpu") is None]


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Tensor]:
    return load_weights(shared / "golden" / "medmamba_small.safetensors")


def part(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def logit_error(network: MedMamba, golden: dict[str, Tensor], size: str) -> float:
    with torch.no_grad():
        difference = network(golden[f"input.{size}"]) - golden[f"logits.{size}"]
    return (difference.abs().max() / golden[f"logits.{size}"].abs().max()).item()


@pytest.mark.parametrize("backend", usable())
@pytest.mark.parametrize("size", SIZES)
def test_logits(golden: dict[str, Tensor], size: str, backend: str) -> None:
    network = from_released_state_dict(part(golden, "state."), scan_backend=backend).eval()
    assert logit_error(network, golden, size) <= 1e-4


def test_scripted_logits(golden: dict[str, Tensor]) -> None:
    network = torch.jit.script(from_released_state_dict(part(golden, "state.")).eval())
    assert logit_error(network, golden, "72x88") <= 1e-4


@pytest.mark.parametrize("backend", usable())
def test_training_step(golden: dict[str, Tensor], backend: str) -> None:
    network = from_released_state_dict(part(golden, "state."), drop_path_rate=0.0, scan_backend=backend).train()
    image = golden["input.64x64"].clone().requires_grad_()
    logits = network(image)
    loss = F.cross_entropy(logits, golden["train.labels"])
    loss.backward()
    largest = golden["train.logits"].abs().max()
    assert (logits - golden["train.logits"]).abs().max() <= 1e-4 * largest
    assert (loss - golden["train.loss"]).abs() <= 1e-4 * largest
    expected = convert_names(part(golden, "grad.")) | {"image": golden["train.input_grad"]}
    result = {name: p.grad for name, p in network.named_parameters()} | {"image": image.grad}
    assert expected.keys() == result.keys()
    for name, truth in expected.items():
        difference = result[name] - truth
        if name.endswith(("conv1.bias", "conv2.bias")):  # ahead of a batch norm: the true gradient is zero
            assert difference.abs().max() <= 1e-4, name
        else:
            assert difference.norm() <= 1e-3 * truth.norm(), name


def swap_directions(network: MedMamba, _: pytest.MonkeyPatch) -> None:
    for name, parameter in network.named_parameters():
        if name.endswith(("x_proj", "dt_weight", "dt_bias", "A_log", ".D")):
            parameter.data = parameter.data[[1, 0, 2, 3]]


def shuffle_in_one_group(_: MedMamba, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmamba_monai.networks.medmamba.interleave", lambda left, right: torch.cat([left, right], -1))


def merge_columns_first(network: MedMamba, _: pytest.MonkeyPatch) -> None:
    for module in network.modules():
        if isinstance(module, PatchMerging):
            parts = module.reduction.weight.data.chunk(4, dim=1)
            module.reduction.weight.data = torch.cat([parts[i] for i in (0, 2, 1, 3)], 1)


def drop_skip(network: MedMamba, _: pytest.MonkeyPatch) -> None:
    for name, parameter in network.named_parameters():
        if name.endswith("mixer.D"):
            parameter.data.zero_()


def drop_softplus(_: MedMamba, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable.F, "softplus", lambda raw: raw)


@pytest.mark.parametrize(
    "plant", [swap_directions, shuffle_in_one_group, merge_columns_first, drop_skip, drop_softplus]
)
def test_planted_errors_are_seen(
    golden: dict[str, Tensor],
    plant: Callable[[MedMamba, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = from_released_state_dict(part(golden, "state."), scan_backend="portable").eval()
    plant(network, monkeypatch)
    assert not logit_error(network, golden, "64x64") <= 1e-2  # a NaN counts as seen


def test_round_trip(golden: dict[str, Tensor]) -> None:
    state = part(golden, "state.")
    back = to_released_state_dict(from_released_state_dict(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
