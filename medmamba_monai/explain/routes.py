r"""What each pixel contributes to a class, and by which route: through states, skip connections, or past the scans.

In direction :math:`k` pixel :math:`q` adds :math:`\Delta_q B_q u_q` to the state, which decays on its way and is read
at every later pixel :math:`p`; normalised, gated and projected, that is what a mixer adds to its block:

.. math::
    y_p = \sum_k \Big(\sum_{q \le_k p} C_p \cdot \big(\textstyle\prod_{q <_k r \le_k p} e^{\Delta_r A_k}\big)
          \Delta_q B_q u_q + D_k u_p\Big), \qquad
    o_p = W \Big(\mathrm{SiLU}(z_p) \odot \big(\gamma \odot \tfrac{y_p - \bar y_p}{\sigma_p} + \beta\big)\Big).

With what the image sets held as it is (:math:`\Delta, B, C`, gates, widths :math:`\sigma`, which ReLU is open) the
network is linear in its pixels. Its gradient :math:`g` then gives each pixel's contribution against the image's mean,
:math:`g_q \cdot (x_q - \bar x)`: a sum over all routes from the pixel to the class's log-odds. (These are the rules of
MambaLRP, arXiv 2406.07592, except that gates are held and not given half of the product.) A route is cut by leaving it
out of the gradient, and what a cut takes away is what came through: the parts sum to the whole.
The whole is no difference of log-odds between two images, since what is held would change from one to the other.

Imports ops and networks.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks import MedMamba
from ..networks.layers import channels_first, channels_last
from ..networks.medmamba import ScanMixer
from ..ops import directional_scan, index_table
from .score import log_odds

__all__ = ["PAST", "SKIP", "direction_names", "pixel_contributions", "route_contributions"]

SKIP, PAST = "skip connection", "past the scan"
_CROSS = {
    2: ("left to right", "top to bottom", "right to left", "bottom to top"),
    3: ("axis 3 forward", "axis 2 forward", "axis 1 forward", "axis 3 backward", "axis 2 backward", "axis 1 backward"),
}


def direction_names(network: MedMamba) -> tuple[str, ...]:
    """What the directions of a network's scans are called, in their order.

    Example:
        >>> direction_names(MedMamba(num_classes=2, depths=(1, 1, 1, 1), dims=(8, 16, 32, 64)))[0]
        'left to right'
    """
    scan = network.config["scan"]
    if scan == "cross":
        return _CROSS[network.spatial_dims]
    return tuple(f"{scan} {k + 1}" for k in range(_directions(network)))


def _directions(network: MedMamba) -> int:
    return next(module.directions for module in network.modules() if isinstance(module, ScanMixer))


def pixel_contributions(
    network: MedMamba,
    images: Tensor,
    targets: Tensor,
    task: str = "multiclass",
    open_routes: Sequence[int] | None = None,
) -> Tensor:
    """Contribution of each pixel to the class's log-odds, against the image's mean.

    They sum neither to the log-odds nor to their difference to those of the mean image: see the top of this module.

    Args:
        network: in evaluation mode.
        images: (B, C, *spatial), taking gradients.
        targets: (B,) int64.
        task: see :func:`~.score.log_odds`.
        open_routes: numbers of the directions whose states pass contributions on, -1 for the skip connection; None
            for all. What goes past the scan always counts.

    Returns:
        (B, 1, *spatial).
    """
    with _linear(network, range(-1, _directions(network)) if open_routes is None else open_routes):
        score = log_odds(network(images), targets, task).sum()
        (gradient,) = torch.autograd.grad(score, images)
    plain = images.detach()
    return (gradient * (plain - plain.mean(tuple(range(2, plain.dim())), keepdim=True))).sum(1, keepdim=True)


def route_contributions(
    network: MedMamba, images: Tensor, targets: Tensor, task: str = "multiclass"
) -> dict[str, Tensor]:
    """Contribution of each pixel by route; the parts sum to :func:`pixel_contributions`.

    A route that passes the states of several directions, in different blocks, counts for the first of them in the order
    of :func:`direction_names`; one that passes skip connections and no state for the skip connection. States may carry
    a millionth of the whole, so everything is computed in float64, on a copy of the network.

    Args:
        network: in evaluation mode.
        images: (B, C, *spatial), taking gradients.
        targets: (B,) int64.
        task: see :func:`~.score.log_odds`.

    Returns:
        By the names of the directions, then :data:`SKIP` and :data:`PAST`: (B, 1, *spatial).
    """
    exact = copy.deepcopy(network).double()
    wide = images.detach().double().requires_grad_()
    directions = _directions(network)
    cuts = [[*range(first, directions), -1] for first in range(directions + 1)] + [[]]
    left = [pixel_contributions(exact, wide, targets, task, routes) for routes in cuts]
    parts = [whole - rest for whole, rest in itertools.pairwise(left)] + left[-1:]
    names = (*direction_names(network), SKIP, PAST)
    return {name: part.to(images.dtype) for name, part in zip(names, parts, strict=True)}


@contextlib.contextmanager
def _linear(network: MedMamba, routes: Sequence[int]) -> Iterator[None]:
    """Let the network give its values, and gradients of what is linear in its pixels, by the routes that are open."""

    def norm(module: nn.LayerNorm, arguments: tuple[Tensor], output: Tensor) -> Tensor:
        return _with_gradient_of(_normalised(module, arguments[0], arguments[0]), output)

    def mixer(module: ScanMixer, arguments: tuple[Tensor], output: Tensor) -> Tensor:
        return _with_gradient_of(_mixed(module, arguments[0], routes), output) if routes else output.detach()

    inside = {id(module.out_norm) for module in network.modules() if isinstance(module, ScanMixer)}
    handles = []
    for module in network.modules():
        if isinstance(module, ScanMixer):
            handles.append(module.register_forward_hook(mixer))
        elif isinstance(module, nn.LayerNorm) and id(module) not in inside:
            handles.append(module.register_forward_hook(norm))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_gradient_of(linear: Tensor, output: Tensor) -> Tensor:
    return output.detach() + (linear - linear.detach())


def _normalised(norm: nn.LayerNorm, x: Tensor, whole: Tensor) -> Tensor:
    """LayerNorm of ``x`` with the width of ``whole``, without the shift."""
    width = torch.rsqrt(whole.detach().var(-1, correction=0, keepdim=True) + norm.eps)
    return (x - x.mean(-1, keepdim=True)) * width * norm.weight


def _mixed(mixer: ScanMixer, x: Tensor, routes: Sequence[int]) -> Tensor:
    """What ``ScanMixer.forward`` does, linear in ``x`` (B, *cells, dim), by the routes that are open."""
    hidden, gate = mixer.in_proj(x).chunk(2, dim=-1)
    hidden = channels_last(mixer.conv(channels_first(hidden)))
    u = (hidden * torch.sigmoid(hidden).detach()).flatten(1, -2)
    given = u.detach()
    projected = F.linear(given, mixer.x_proj.flatten(0, 1)).unflatten(2, [mixer.directions, -1])
    dt, B, C = projected.split([mixer.dt_rank, mixer.d_state, mixer.d_state], dim=-1)
    A = -torch.exp(mixer.A_log.float())
    order = index_table(mixer.scan, tuple(x.shape[1:-1]), x.device)

    def scanned(source: Tensor, k: Sequence[int], skip: Tensor) -> Tensor:
        chosen = list(k)
        return directional_scan(
            source, dt[:, :, chosen], A[chosen], B[:, :, chosen], C[:, :, chosen], skip[chosen],
            mixer.dt_weight[chosen], mixer.dt_bias[chosen], order[chosen], backend=mixer.scan_backend,
        )  # fmt: skip

    y = u * mixer.D.sum(0) if -1 in routes else torch.zeros_like(u)
    states = [k for k in routes if k >= 0]
    if states:
        y = y + scanned(u, states, torch.zeros_like(mixer.D))
    y = _normalised(mixer.out_norm, y, scanned(given, range(mixer.directions), mixer.D))
    return mixer.out_proj(y.reshape(hidden.shape) * F.silu(gate).detach())
