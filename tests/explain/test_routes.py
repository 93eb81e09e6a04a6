"""Contributions by route against sums written out over sources, and the partition they make."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medmamba_monai.errors import ConfigError
from medmamba_monai.explain import explain
from medmamba_monai.explain.passes import studied
from medmamba_monai.explain.routes import (
    PAST,
    SKIP,
    _linear,
    _mixed,
    direction_names,
    pixel_contributions,
    route_contributions,
)
from medmamba_monai.networks.medmamba import ScanMixer
from medmamba_monai.ops import index_table

from .conftest import Convolutional, pictures, small


def mixer_and_map(cells: tuple[int, ...] = (3, 4)) -> tuple[ScanMixer, Tensor]:
    mixer = small(len(cells)).double().stages[1].blocks[0].mixer
    with torch.no_grad():
        mixer.D.uniform_(0.2, 1.0)  # else every direction's skip connection is the same
        mixer.out_norm.weight.uniform_(0.5, 2.0)
    generator = torch.Generator().manual_seed(3)
    return mixer, torch.randn(1, *cells, 8, generator=generator).double().requires_grad_()


def written_out(mixer: ScanMixer, x: Tensor, routes: list[int]) -> Tensor:
    """The mixer's linear part by the open routes: a double loop over readers and sources, no scan at all."""
    L = x[0, ..., 0].numel()
    hidden, gate = mixer.in_proj(x).chunk(2, dim=-1)
    hidden = mixer.conv(hidden.movedim(-1, 1)).movedim(1, -1)
    u = (hidden * torch.sigmoid(hidden.detach())).reshape(L, -1)
    projected = (u.detach() @ mixer.x_proj.flatten(0, 1).T).unflatten(1, [mixer.directions, -1])
    dt, B, C = projected.split([mixer.dt_rank, mixer.d_state, mixer.d_state], dim=-1)
    whole, chosen = torch.zeros_like(u), torch.zeros_like(u)
    for k, order in enumerate(index_table(mixer.scan, tuple(x.shape[1:-1]), x.device)):
        delta = F.softplus(dt[:, k] @ mixer.dt_weight[k].T + mixer.dt_bias[k])  # (L, E)
        A = -torch.exp(mixer.A_log[k].float())
        states = []
        for p in range(L):
            total = torch.zeros_like(u[0])
            for q in range(p + 1):
                between = delta[order[q + 1 : p + 1]].sum(0) if q < p else torch.zeros_like(u[0])
                kernel = (C[order[p], k] * torch.exp(between[:, None] * A) * B[order[q], k]).sum(1)
                total = total + kernel * delta[order[q]] * u[order[q]]
            states.append((int(order[p]), total))
        through = torch.stack([value for _, value in sorted(states, key=lambda pair: pair[0])])
        whole = whole + through.detach() + (mixer.D[k] * u).detach()
        chosen = chosen + (through if k in routes else 0) + (mixer.D[k] * u if -1 in routes else 0)
    width = (whole.var(1, correction=0, keepdim=True) + mixer.out_norm.eps) ** -0.5
    y = (chosen - chosen.mean(1, keepdim=True)) * width * mixer.out_norm.weight
    return mixer.out_proj(y.reshape(hidden.shape) * F.silu(gate.detach()))


@pytest.mark.parametrize("routes", [[0], [1, 3], [-1], [-1, 0, 1, 2, 3]])
def test_a_mixer_agrees_with_sums_over_its_sources(routes: list[int]) -> None:
    mixer, x = mixer_and_map()
    ours, theirs = _mixed(mixer, x, routes), written_out(mixer, x, routes)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad((ours * upstream).sum(), x)[0], torch.autograd.grad((theirs * upstream).sum(), x)[0]
    )


def test_with_all_routes_a_mixer_gives_its_values_but_for_the_shift() -> None:
    mixer, x = mixer_and_map()
    torch.nn.init.zeros_(mixer.out_norm.bias)
    torch.testing.assert_close(_mixed(mixer, x, [-1, 0, 1, 2, 3]), mixer(x))


def test_a_direction_passes_contributions_forward_only() -> None:
    """From left to right a pixel speaks to itself and those after it; the convolution ahead reaches one more."""
    mixer, x = mixer_and_map((1, 8))
    received = _mixed(mixer, x, [0])[0, 0, 3].sum()
    (gradient,) = torch.autograd.grad(received, x)
    speaking = gradient[0, 0].abs().sum(1) > 0
    assert speaking.tolist() == [True] * 5 + [False] * 3


@pytest.mark.parametrize("routes", [[], [-1], [-1, 0, 1, 2, 3]])
def test_a_network_with_cut_routes_still_gives_its_values(routes: list[int]) -> None:
    network, images = small(), pictures(2, 48, 64)
    with _linear(network, routes):
        torch.testing.assert_close(network(images), small()(images), rtol=1e-4, atol=1e-4)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(("dims", "size"), [(2, (48, 33)), (3, (32, 32, 36))])
def test_the_routes_sum_to_the_whole(dims: int, size: tuple[int, ...]) -> None:
    network = small(dims)
    with studied(network, pictures(2, *size)) as images:
        targets = torch.tensor([0, 2])
        parts = route_contributions(network, images, targets)
        whole = pixel_contributions(network, images, targets)
    assert list(parts) == [*direction_names(network), SKIP, PAST]
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(0), whole, rtol=1e-3, atol=1e-5)
    assert all(float(part.abs().max()) > 0 for part in parts.values())


def test_routes_that_carry_nothing_are_empty() -> None:
    network = small()
    for module in network.modules():
        if isinstance(module, ScanMixer):
            torch.nn.init.zeros_(module.D)
            with torch.no_grad():  # B of the second direction
                module.x_proj[1, module.dt_rank : module.dt_rank + module.d_state] = 0
    found = explain(network, pictures(1, 32, 32), "scan", routes=True).routes
    assert float(found[SKIP].abs().max()) == 0
    assert float(found["top to bottom"].abs().max()) == 0
    assert float(found["left to right"].abs().max()) > 0


def test_the_map_is_against_the_mean_of_the_image() -> None:
    """A constant image contributes nothing, in which ever units the images are."""
    found = explain(small(), torch.full((1, 1, 32, 32), 7.0), "scan")
    assert float(found.maps.abs().max()) == 0


def test_an_optimized_network_gives_the_same_maps() -> None:
    network, images = small(), pictures(1, 64, 64)
    torch.testing.assert_close(
        explain(network.optimize_for_inference(), images, "scan", targets=1).maps,
        explain(network, images, "scan", targets=1).maps,
        rtol=1e-3,
        atol=1e-5,
    )


def test_names_of_directions_are_those_of_the_orders() -> None:
    table = index_table("cross", (2, 3), torch.device("cpu"))
    firsts = dict(zip(direction_names(small()), table[:, :2].tolist(), strict=True))
    assert firsts == {
        "left to right": [0, 1], "top to bottom": [0, 3], "right to left": [5, 4], "bottom to top": [5, 2]
    }  # fmt: skip
    assert direction_names(small(scan="bidirectional")) == ("bidirectional 1", "bidirectional 2")


def test_other_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match="Convolutional"):
        explain(Convolutional(), pictures(1, 32, 32), "scan")
