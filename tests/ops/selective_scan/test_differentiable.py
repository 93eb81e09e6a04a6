"""Second derivatives, forward-mode ones and torch.func, against the loop and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from medmamba_monai.errors import BackendError
from medmamba_monai.networks import MedMamba
from medmamba_monai.ops import directional_scan, selective_scan
from medmamba_monai.ops.selective_scan import differentiable, dispatch, functional, reference
from medmamba_monai.ops.selective_scan.contract import DirectionalInputs, SequenceInputs

from . import problems

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(dispatch.unavailable(name, "cpu") is not None, reason="not built"))
    for name in ("cpu", "portable", "reference")
]


def of_sequence(inputs: SequenceInputs, backend: str | None = None) -> Tensor:
    """The public function, its two results as one."""
    *tensors, softplus = inputs
    u, delta, A, B, C, D, bias, initial = tensors
    y, last = selective_scan(u, delta, A, B, C, D, None, bias, softplus, True, initial, backend)
    return torch.cat([y.flatten(), last.flatten()])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_second_derivatives_of_the_directional_scan(dtype: torch.dtype, backend: str) -> None:
    inputs = problems.directional((3, 7), batch=2, scan="bidirectional")
    inputs = inputs._replace(B=inputs.B * 0.3, C=inputs.C * 0.3)  # first gradients of order one, for their sine
    got = problems.second(
        lambda *t: directional_scan(*t, inputs.order, backend=backend), list(problems.to(inputs, dtype)[:-1])
    )
    want = problems.second(
        lambda *t: reference.directional_scan(DirectionalInputs(*t, inputs.order)), list(inputs[:-1])
    )
    bound = 1e-10 if dtype == torch.float64 else 1e-3  # the sine of gradients as large as 30
    assert max(map(problems.error, got, want)) <= bound


@pytest.mark.parametrize("optional", [True, False])
def test_second_derivatives_of_the_plain_scan(optional: bool) -> None:
    inputs = problems.sequence(19, optional=optional)
    names = [name for name, t in zip(inputs._fields, inputs, strict=True) if isinstance(t, Tensor)]

    def run(scan: Callable[[SequenceInputs], Tensor], *tensors: Tensor) -> Tensor:
        return scan(inputs._replace(**dict(zip(names, tensors, strict=True))))

    tensors = [getattr(inputs, name) for name in names]
    pairs = zip(
        problems.second(partial(run, of_sequence), tensors), problems.second(partial(run, loop), tensors), strict=True
    )
    assert max(problems.error(a, b) for a, b in pairs) <= 1e-10


def test_inputs_without_a_gradient_get_none_and_the_rest_theirs() -> None:
    inputs = problems.directional((2, 3))
    dt = inputs.dt.clone().requires_grad_()
    y = directional_scan(*inputs._replace(dt=dt)).square().sum()
    (first,) = torch.autograd.grad(y, dt, create_graph=True)
    (again,) = torch.autograd.grad(first.sum(), dt)
    hessian = torch.autograd.functional.hessian(
        lambda t: reference.directional_scan(inputs._replace(dt=t)).square().sum(), inputs.dt
    )
    assert isinstance(hessian, Tensor)
    assert problems.error(again, hessian.sum(dim=(0, 1, 2, 3))) <= 1e-10


def mixed(scan: Callable[[SequenceInputs], Tensor], u: Tensor) -> Tensor:
    """A scan whose other inputs are made from u, as a projection makes them."""
    B = u.movedim(1, 2).cumsum(2).unflatten(2, (1, -1)).permute(0, 2, 3, 1)[:, :, :4]
    A = -torch.linspace(0.1, 1, 24, dtype=u.dtype).view(6, 4)
    return scan(SequenceInputs(u, u, A, B, B.sin(), None, None, None, True))


def loop(inputs: SequenceInputs) -> Tensor:
    y, last = reference.sequence_scan(inputs)
    return torch.cat([y.flatten(), last.flatten()])


def test_inputs_made_from_each_other_are_counted_once() -> None:
    u = problems.sequence(7).u
    firsts = []
    for scan in (of_sequence, loop):
        leaf = u.clone().requires_grad_()
        (first,) = torch.autograd.grad(mixed(scan, leaf).square().sum(), leaf, create_graph=True)
        firsts.append(first.detach())
    assert problems.error(*firsts) <= 1e-12
    got, want = (problems.second(partial(mixed, scan), [u])[0] for scan in (of_sequence, loop))
    assert problems.error(got, want) <= 1e-10


@pytest.mark.parametrize("name", ["u", "C", "D", "initial_state"])
def test_one_input_alone_requires_a_gradient(name: str) -> None:
    inputs = problems.sequence(6)
    got, want = (
        problems.second(lambda t, scan=scan: scan(inputs._replace(**{name: t})), [getattr(inputs, name)])[0]
        for scan in (of_sequence, loop)
    )
    assert problems.error(got, want) <= 1e-10


@pytest.mark.parametrize("create_graph", [False, True])
def test_only_the_incoming_gradient_is_transformed(create_graph: bool) -> None:
    inputs = problems.directional((2, 3))
    u = inputs.u.clone().requires_grad_()
    weight, direction = torch.randn_like(u), torch.randn_like(u)

    def gradient(y: Tensor, weight: Tensor) -> Tensor:
        return torch.autograd.grad(y, u, weight, create_graph=create_graph, retain_graph=True)[0].sin()

    y, exact = directional_scan(*inputs._replace(u=u)), reference.directional_scan(inputs._replace(u=u))
    ends = [gradient(exact, weight + sign * 1e-6 * direction).detach() for sign in (1, -1)]
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(gradient(y, forward_ad.make_dual(weight, direction))).tangent
    assert tangent is not None and problems.error(tangent.detach(), (ends[0] - ends[1]) / 2e-6) <= 1e-7
    value, tangent = torch.func.jvp(partial(gradient, y), (weight,), (direction,))
    assert problems.error(value.detach(), gradient(exact, weight).detach()) <= 1e-12
    assert problems.error(tangent.detach(), (ends[0] - ends[1]) / 2e-6) <= 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_inside_and_outside_of_transformations(backend: str) -> None:
    """A function that was compiled for plain tensors is compiled anew where they are not."""
    inputs = problems.directional((2, 3), channels=3)
    scan, direction = partial(_of_u, inputs, directional_scan), torch.randn_like(inputs.u)
    want = torch.func.jvp(scan, (inputs.u,), (direction,))[1]
    compiled = torch.compile(scan, backend=backend)
    assert problems.error(compiled(inputs.u), scan(inputs.u)) <= 1e-12
    assert problems.error(torch.func.jvp(compiled, (inputs.u,), (direction,))[1], want) <= 1e-12
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(compiled(forward_ad.make_dual(inputs.u, direction))).tangent
    assert tangent is not None and problems.error(tangent, want) <= 1e-12
    assert problems.error(compiled(inputs.u), scan(inputs.u)) <= 1e-12

    def tangent_of(u: Tensor) -> Tensor:
        return torch.func.jvp(scan, (u,), (direction,))[1]

    assert problems.error(torch.compile(tangent_of, backend=backend)(inputs.u), want) <= 1e-12
    energy = torch.func.grad(lambda u: scan(u).square().sum())
    compiled = torch.compile(energy, backend=backend, fullgraph=True)
    assert problems.error(compiled(inputs.u), energy(inputs.u)) <= 1e-12


def test_torch_func_on_the_directional_scan() -> None:
    inputs = problems.directional((2, 3), channels=3)
    scan = partial(_of_u, inputs, directional_scan)
    loop = partial(_of_u, inputs, lambda *t: reference.directional_scan(DirectionalInputs(*t)))
    exact = torch.autograd.functional.jacobian(loop, inputs.u)
    assert isinstance(exact, Tensor)
    assert problems.error(torch.func.jacrev(scan)(inputs.u), exact) <= 1e-12
    assert problems.error(torch.func.jacfwd(scan)(inputs.u), exact) <= 1e-12
    batch = torch.stack([inputs.u, 2 * inputs.u])
    assert problems.error(torch.func.vmap(scan)(batch), torch.stack([loop(u) for u in batch])) <= 1e-12


def _of_u(inputs: DirectionalInputs, scan: Callable[..., Tensor], u: Tensor) -> Tensor:
    return scan(*inputs._replace(u=u))


@pytest.mark.parametrize("softplus", [True, False])
def test_forward_mode_on_the_plain_scan(softplus: bool) -> None:
    inputs = problems.sequence(9, optional=softplus, softplus=softplus)
    direction = torch.randn_like(inputs.delta)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(inputs.delta, direction)
        tangent = forward_ad.unpack_dual(of_sequence(inputs._replace(delta=dual))).tangent
    step = 1e-6 * direction
    ends = [of_sequence(inputs._replace(delta=inputs.delta + sign * step)) for sign in (1, -1)]
    assert tangent is not None and problems.error(tangent, (ends[0] - ends[1]) / 2e-6) <= 1e-7


def test_a_state_kept_in_single_precision() -> None:
    """bfloat16 in, bfloat16 out, also where autocast would lower the products."""
    inputs = problems.directional((3, 5), dtype=torch.bfloat16)
    inputs = inputs._replace(**{n: getattr(inputs, n).float() for n in ("A", "D", "dt_weight", "dt_bias")})
    with torch.autocast("cpu", torch.bfloat16):
        y = torch.func.vmap(partial(_of_u, inputs, directional_scan))(inputs.u[None])[0]
    assert y.dtype == torch.bfloat16
    assert problems.error(y, reference.directional_scan(problems.to(inputs, torch.float64))) <= 1e-2


def test_a_named_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = problems.directional((2, 3))
    with pytest.raises(BackendError, match=r"'cpu' knows neither torch\.func nor forward-mode .*name no backend"):
        torch.func.vmap(lambda u: directional_scan(*inputs._replace(u=u), backend="cpu"))(inputs.u[None])
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "portable")
    sequence = problems.sequence(5)
    with pytest.raises(BackendError, match="'portable' knows neither"):
        torch.func.vmap(lambda u: of_sequence(sequence._replace(u=u)))(sequence.u[None])


def test_plain_tensors_stay_with_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(functional.exportable, "directional_scan", refuse)
    inputs = problems.directional((2, 3), dtype=torch.float32)
    u = inputs.u.requires_grad_()
    directional_scan(*inputs).sum().backward()
    assert u.grad is not None
    with forward_ad.dual_level():  # a level alone carries no tangent
        assert not differentiable.needs_plain_operators(inputs, "cpu")


def small_network() -> MedMamba:
    torch.manual_seed(0)
    return MedMamba(depths=(1, 1, 1, 1), dims=(32, 64, 128, 256), num_classes=3).eval()


def test_gradients_of_each_image() -> None:
    """vmap(grad) with functional_call, as PyTorch's tutorial on per-sample gradients does it."""
    network, images, labels = small_network(), torch.rand(2, 3, 32, 32), torch.tensor([0, 2])
    parameters = {name: p.detach() for name, p in network.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(network, parameters, (image[None],))
        return nn.functional.cross_entropy(logits, label[None])

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, images, labels)
    for i in range(2):
        network.zero_grad()
        nn.functional.cross_entropy(network(images[i : i + 1]), labels[i : i + 1]).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            assert problems.error(got[name][i], parameter.grad) <= 1e-3, name


def test_an_image_that_a_transformed_function_captures() -> None:
    """It is no wrapped tensor, but what the optimized network makes of it may be."""
    network, image = small_network(), torch.rand(1, 3, 32, 32)
    optimized = network.optimize_for_inference()

    def energy(network: nn.Module, weight: Tensor) -> Tensor:
        return (network(image) * weight).square().sum()

    got, want = (torch.func.grad(partial(energy, n))(torch.ones(())) for n in (optimized, network))
    assert problems.error(got, want) <= 1e-5


@pytest.mark.parametrize("optimized", [False, True])
def test_the_network_has_the_tangent_of_finite_differences(optimized: bool) -> None:
    network = small_network()
    exact = small_network().double()
    network = network.optimize_for_inference() if optimized else network
    image, direction = torch.rand(1, 3, 32, 32), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        step = 1e-5 * direction.double()
        want = (exact(image.double() + step) - exact(image.double() - step)) / 2e-5
        assert problems.error(torch.func.jvp(network, (image,), (direction,))[1], want) <= 1e-3
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(network(forward_ad.make_dual(image, direction))).tangent
    assert tangent is not None and problems.error(tangent, want) <= 1e-3
