"""The fused chains against PyTorch's own operators in float64, alone and in a whole block of the network.

Kernels run in Triton's interpreter, in a process of its own, or on a GPU; what torch.library knows of them, anywhere.
"""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medmamba_monai.errors import BackendError
from medmamba_monai.networks import MedMamba
from medmamba_monai.networks.inference import FoldedConvBranch
from medmamba_monai.networks.medmamba import ScanMixer, SSConvSSMBlock
from medmamba_monai.ops import strides
from medmamba_monai.ops.selective_scan import chains, dispatch, portable, reference
from medmamba_monai.ops.selective_scan.contract import DirectionalInputs

from . import interpreter, problems

pytest.importorskip("triton", reason="the package triton is not installed")

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture
def device() -> str:
    return interpreter.device()


def test_in_the_interpreter() -> None:
    interpreter.run_in_the_interpreter(__file__, "not slow and not gpu")


@pytest.mark.slow
def test_in_the_interpreter_at_length() -> None:
    interpreter.run_in_the_interpreter(__file__, "slow and not gpu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def errors_of(got: list[Tensor], want: list[Tensor]) -> list[float]:
    return [problems.error(a.detach().cpu(), b.detach()) for a, b in zip(got, want, strict=True)]


def gradients(y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Of a sum with weights that every precision holds exactly: what enters backward is the same in all of them."""
    return [y, *torch.autograd.grad((y * noise(*y.shape, seed=9).bfloat16().to(y)).sum(), leaves)]


@PRECISIONS
@pytest.mark.parametrize("spatial", [(1, 1), (3, 5), (2, 3, 4)], ids=str)
def test_depthwise_convolution(spatial: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    rank, channels = len(spatial), 5
    module = {2: nn.Conv2d, 3: nn.Conv3d}[rank](channels, channels, 3, padding=1, groups=channels)
    x = noise(2, *spatial, 2 * channels).to(dtype)
    leaf = x.to(device).requires_grad_()
    own = copy.deepcopy(module).to(device)
    y = chains.depthwise_silu(leaf[..., :channels], own)
    assert y.dtype == dtype and y.is_contiguous()
    got = gradients(y, [leaf, *own.parameters()])
    exact, truth = x.double().requires_grad_(), module.double()
    expected = F.silu(truth(exact[..., :channels].movedim(-1, 1))).movedim(1, -1)
    want = gradients(expected, [exact, *truth.parameters()])
    assert max(errors_of(got, want)) <= TOLERANCES[dtype]
    with torch.no_grad():
        own.weight.copy_(own.weight.flip(2))  # a wrong tap is seen
    turned = chains.depthwise_silu(leaf[..., :channels], own)
    assert spatial[0] == 1 or problems.error(turned.detach().cpu(), expected.detach()) > 1e-2


def test_depthwise_convolution_in_groups(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that takes several blocks of pixels for the gradient of the weight, the last of them ragged."""
    from medmamba_monai.ops.selective_scan.kernels import fused

    monkeypatch.setattr(fused, "_PARTS", 1)
    test_depthwise_convolution((20, 41), torch.float32, device)


@PRECISIONS
def test_scan_norm_and_gate(dtype: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from medmamba_monai.ops.selective_scan.kernels import fused

    monkeypatch.setattr(fused, "_PARTS", 1)
    inputs = problems.directional((1, 3), batch=2, channels=6, scan="bidirectional", dtype=torch.float32)
    inputs = inputs._replace(**{name: getattr(inputs, name).to(dtype) for name in ("u", "dt", "B", "C")})
    norm = nn.LayerNorm(6)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    gate = noise(2, 3, 12).to(dtype)

    leaves = [t.to(device).requires_grad_() for t in inputs[:-1]]
    own, leaf = copy.deepcopy(norm).to(device), gate.to(device).requires_grad_()
    order = inputs.order.to(device)
    y = chains.scan_norm_gate(
        DirectionalInputs(*leaves, order), strides("bidirectional", (1, 3)), own, leaf[..., 6:]
    )  # half of a projection
    assert y.dtype == dtype
    got = gradients(y, [*leaves, *own.parameters(), leaf])

    exact = [t.double().requires_grad_() for t in inputs[:-1]]
    open_, truth = gate.double().requires_grad_(), norm.double()
    scanned = reference.directional_scan(DirectionalInputs(*exact, inputs.order))
    expected = truth(scanned) * F.silu(open_[..., 6:])
    want = gradients(expected, [*exact, *truth.parameters(), open_])
    assert max(errors_of(got, want)) <= TOLERANCES[dtype]
    spoilt = reference.directional_scan(DirectionalInputs(*exact, inputs.order.flip(1)))
    other = truth(spoilt) * F.silu(open_[..., 6:])
    assert problems.error(y.detach().cpu(), other.detach()) > 3e-2  # the order matters, and would be seen


@pytest.mark.parametrize("left", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("residual", [torch.float32, torch.bfloat16], ids=str)
def test_interleave_and_residual(residual: torch.dtype, left: torch.dtype, device: str) -> None:
    """Types promote as they do in PyTorch: under autocast, a float32 map has halves in bfloat16 added to it."""
    tensors = [
        noise(2, 3, 5, 14).to(residual),
        noise(2, 3, 5, 14, seed=1).to(left)[..., :7],
        noise(2, 3, 5, 7).to(left),
    ]
    leaves = [t.to(device).detach().requires_grad_() for t in tensors]
    y = chains.interleave_add(*leaves)
    got = gradients(y, leaves)
    assert [g.dtype for g in got[1:]] == [residual, left, left]
    exact = [t.double().requires_grad_() for t in tensors]
    expected = exact[0] + torch.stack(exact[1:], dim=-1).flatten(-2)
    assert y.dtype == (residual if residual == left else torch.float32)
    want = gradients(expected, exact)
    assert max(errors_of(got, want)) <= TOLERANCES[torch.bfloat16 if torch.bfloat16 in (residual, left) else y.dtype]


def test_second_derivatives(device: str) -> None:
    """Backward passes that are to be differentiated go through PyTorch's own operators."""
    conv, norm = nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.LayerNorm(3)
    inputs = problems.directional((1, 4), channels=3, scan="raster", dtype=torch.float32)
    order, gate, pixels = inputs.order.to(device), noise(1, 4, 3).float(), noise(1, 1, 4, 3).float()

    def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return torch.ops.medmamba.depthwise_silu(x, weight, bias)
        return F.silu(F.conv2d(x.movedim(-1, 1), weight, bias, padding=1, groups=3)).movedim(1, -1)

    def interleave(residual: Tensor, left: Tensor, right: Tensor) -> Tensor:
        if residual.dtype == torch.float32:
            return chains.interleave_add(residual, left, right).sin()
        return (residual + torch.stack([left, right], -1).flatten(-2)).sin()

    def scan(*tensors: Tensor) -> Tensor:
        *scanned, weight, bias, gate = tensors
        if gate.dtype == torch.float32:
            return torch.ops.medmamba.scan_norm_gate(*scanned, order, [], weight, bias, 1e-5, gate, True)[0]
        y = reference.directional_scan(DirectionalInputs(*scanned, inputs.order))
        return F.layer_norm(y, (3,), weight, bias) * F.silu(gate)

    for chain, tensors in (
        (convolve, [pixels, conv.weight, conv.bias]),
        (interleave, [noise(2, 6).float(), noise(2, 3, seed=1).float(), noise(2, 3, seed=2).float()]),
        (scan, [*inputs[:-1], norm.weight, norm.bias, gate]),
    ):
        got = problems.second(chain, [t.detach().to(device) for t in tensors])
        want = problems.second(chain, [t.detach().double() for t in tensors])
        assert max(errors_of(got, want)) <= 1e-3


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each chain ran."""
    from medmamba_monai.ops.selective_scan.kernels import fused

    counter: Counter[str] = Counter()
    for name in fused.__all__:
        function = getattr(fused, name)

        def counted(*arguments: Any, _name: str = name, _function: Any = function, **options: Any) -> Any:
            counter[_name] += 1
            return _function(*arguments, **options)

        monkeypatch.setattr(fused, name, counted)
    return counter


def of_block(block: nn.Module, x: Tensor, precision: torch.dtype | None) -> dict[str, Tensor]:
    """Output and gradients of a block, by name, under autocast where a precision is given."""
    leaf = x.clone().requires_grad_()
    with torch.autocast(x.device.type, precision, enabled=precision is not None):
        y = block(leaf)
    names, parameters = zip(*block.named_parameters(), strict=True)
    result = dict(zip(["y", "x", *names], gradients(y, [leaf, *parameters]), strict=True))
    return {name: value.detach().cpu() for name, value in result.items()}


def make_block(spatial: tuple[int, ...], backend: str) -> nn.Module:
    torch.manual_seed(0)
    block = SSConvSSMBlock(len(spatial), 8, 2, 0.0, "cross", backend)
    generator = torch.Generator().manual_seed(1)
    for parameter in block.parameters():  # a block alone is not initialised
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4 + (parameter.dim() == 1)
    return block.eval()


@pytest.mark.parametrize("spatial", [(2, 2), pytest.param((3, 5), marks=pytest.mark.slow),
                                     pytest.param((2, 3, 2), marks=pytest.mark.slow)], ids=str)  # fmt: skip
def test_a_block_computes_the_same_fused(spatial: tuple[int, ...], device: str, calls: Counter[str]) -> None:
    """Forward and every gradient of a block that fuses, against one that does not, in float64."""
    x = noise(2, *spatial, 8, seed=2)
    got = of_block(make_block(spatial, "triton").to(device), x.float().to(device), None)
    assert set(calls) == {
        "convolve",
        "gated",
        "interleaved",
        *(f"{n}_backward" for n in ("convolve", "gated", "interleaved")),
    }
    assert set(calls.values()) == {1}
    want = of_block(make_block(spatial, "reference").double(), x, None)
    errors = {name: problems.error(got[name], want[name]) for name in want}
    assert max(errors.values()) <= 1e-5, errors


def test_a_block_under_autocast(device: str, calls: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 the fused block is as near to float64 as the one that runs the same scan alone."""
    x = noise(2, 2, 2, 8, seed=2)
    got = of_block(make_block((2, 2), "triton").to(device), x.float().to(device), torch.bfloat16)
    assert calls["gated"] == calls["gated_backward"] == 1
    monkeypatch.setattr(chains, "fuses", lambda *_: False)
    plain = of_block(make_block((2, 2), "triton").to(device), x.float().to(device), torch.bfloat16)
    assert calls["gated"] == 1
    want = of_block(make_block((2, 2), "reference").double(), x, None)
    assert {n: t.dtype for n, t in got.items()} == {n: t.dtype for n, t in plain.items()}
    fused_errors, plain_errors = ([problems.error(run[n], want[n]) for n in want] for run in (got, plain))
    assert problems.error(got["y"], want["y"]) <= 1e-2
    assert max(fused_errors) <= 3e-2  # gradients, of maps that are all rounded; the reference's loop has 2.2e-2
    assert sum(fused_errors) <= sum(plain_errors) * 1.1


def test_maps_of_more_than_2_31_numbers(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 2^30 numbers apart, in a file with holes: offsets of 32 bits would read somewhere else."""
    apart, channels = 2**30 + 16, 3
    if torch.device(device).type != "cpu":
        pytest.skip("a map of holes is for CPUs")
    from triton.runtime.interpreter import GridExecutor

    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *arguments: None)  # it would fill the holes
    storage = torch.UntypedStorage.from_file(str(tmp_path / "holes"), shared=True, nbytes=2 * (2 * apart + 16))
    wide = torch.empty(0, dtype=torch.bfloat16).set_(storage).as_strided((1, 3, 1, channels), (3 * apart, apart, 1, 1))
    wide.copy_(noise(1, 3, 1, channels))
    dense = wide.clone(memory_format=torch.contiguous_format)
    assert wide.stride(1) == apart and dense.stride(1) == channels
    conv, norm = nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.LayerNorm(channels)
    inputs = problems.directional((1, 3), channels=channels, states=2, scan="raster", dtype=torch.float32)
    results = []
    for x in (wide, dense):
        rows = x.flatten(1, 2)
        assert rows.stride(1) == x.stride(1)
        leaves = [rows.detach().requires_grad_(), x.detach().requires_grad_()]
        y = chains.scan_norm_gate(inputs._replace(u=leaves[0]), None, norm, leaves[0])
        results.append([*gradients(y, leaves[:1]), *gradients(chains.depthwise_silu(leaves[1], conv), leaves[1:])])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["depthwise_silu", "interleave_add", "scan_norm_gate"])
def test_opcheck(name: str, device: str) -> None:
    def leaf(*shape: int) -> Tensor:
        return noise(*shape).float().to(device).requires_grad_()

    inputs = problems.directional((1, 2), channels=3, states=2, scan="raster", dtype=torch.float32)
    scan = [t.to(device).requires_grad_() for t in inputs[:-1]]
    arguments: dict[str, tuple[Any, ...]] = {
        "depthwise_silu": (leaf(2, 2, 3, 4), leaf(4, 1, 3, 3), leaf(4)),
        "interleave_add": (leaf(2, 3, 8), leaf(2, 3, 4), leaf(2, 3, 4)),
        "scan_norm_gate": (
            *scan, inputs.order.to(device), [0, 1, 2, 2, 1], leaf(3), leaf(3), 1e-5, leaf(1, 2, 3), True,
        ),
    }  # fmt: skip
    torch.library.opcheck(getattr(torch.ops.medmamba, name).default, arguments[name])


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_mixer_compiles_without_graph_break(dynamic: bool, device: str) -> None:
    mixer = ScanMixer(2, 4, 2, "cross", "triton").to(device)
    block = make_block((2, 2), "triton").mixer
    mixer.load_state_dict(block.state_dict())  # type: ignore[union-attr, arg-type]
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    x = noise(1, 2, 3, 4).float().to(device)
    got, want = (gradients(run(leaf := x.clone().requires_grad_()), [leaf]) for run in (compiled, mixer))
    assert max(errors_of(got, [t.cpu() for t in want])) <= 1e-6


@pytest.mark.slow
def test_a_network_computes_the_same_fused(device: str, calls: Counter[str]) -> None:
    """Convolutions folded for inference, one image: the path of the smallest latency."""
    torch.manual_seed(0)
    plain = MedMamba(depths=(1, 1, 1, 1), dims=(4, 8, 16, 32), d_state=2, num_classes=3, scan_backend="portable").eval()
    fused_one = MedMamba(
        depths=(1, 1, 1, 1), dims=(4, 8, 16, 32), d_state=2, num_classes=3, scan_backend="triton"
    ).eval()
    fused_one.load_state_dict(plain.state_dict())
    for stage in fused_one.stages:
        stage.blocks[0].conv_branch = FoldedConvBranch(stage.blocks[0].conv_branch)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want = plain.double()(image.double())
        got = fused_one.to(device)(image.to(device)).cpu()
    assert calls["gated"] == calls["convolve"] == calls["interleaved"] == 4
    assert problems.error(got, want) <= 1e-5


def test_where_chains_are_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1)
    assert not chains.fuses(x, "portable") and not chains.fuses(x, "reference")
    if not interpreter.INTERPRETED:
        assert not chains.fuses(x)
        with pytest.raises(BackendError, match="'triton' cannot run on cpu"):
            chains.fuses(x, "triton")
    monkeypatch.setattr(dispatch, "resolve", lambda kind, backend: backend or "triton")
    assert chains.fuses(x) and chains.fuses(x, "triton") and chains.fuses(x.bfloat16())
    assert not chains.fuses(x, "cpu") and not chains.fuses(x.double())
    assert not chains.fuses(x.to(torch.float8_e4m3fn))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert not chains.fuses(x)  # the graph shall run without this package
    assert chains.fuses(x, "triton")  # unless the backend is named


def test_a_fused_network_asks_for_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a CUDA graph needs it: a training step under fake tensors, which have shapes and no values to wait for."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    monkeypatch.setattr(dispatch, "resolve", lambda kind, backend: "triton")
    seen: Counter[str] = Counter()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
            seen[str(function).split(".")[1] if "medmamba" in str(function) else ""] += 1
            seen["sync"] += str(function) in ("aten._local_scalar_dense.default", "aten.nonzero.default")
            return function(*arguments, **(options or {}))

    network = MedMamba(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), num_classes=3)
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with FakeTensorMode(allow_non_fake_inputs=True):  # the table of pixels is made once and kept
        fake = {n: torch.empty(t.shape, dtype=t.dtype).requires_grad_(t.requires_grad) for n, t in state.items()}
        images, labels = torch.rand(2, 3, 64, 48), torch.zeros(2, dtype=torch.int64)
        with Watch(), torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(torch.func.functional_call(network, fake, images), labels)
            loss.backward()
    assert all(fake[name].grad is not None for name, _ in network.named_parameters())
    chained = ("depthwise_silu", "interleave_add", "scan_norm_gate")
    assert [seen[name] for name in chained] == [4, 4, 4]
    assert [seen[f"{name}_backward"] for name in chained] == [4, 4, 4]
    assert seen["sync"] == 0 and seen["directional_scan"] == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or interpreter.INTERPRETED, reason="needs a CUDA device")
def test_a_training_network_on_a_gpu() -> None:
    """All gradients of a network, fused and not, and a step of it captured in a CUDA graph."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (96, 192, 384, 768), "num_classes": 3}
    plain, other = (MedMamba(**options, scan_backend=b).cuda().eval() for b in ("portable", "triton"))
    other.load_state_dict(plain.state_dict())
    images = torch.rand(4, 3, 224, 224, device="cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    got, want = of_block(other, images, None), of_block(plain, images, None)
    assert {n: e for n in want if (e := problems.error(got[n], want[n])) > 1e-4} == {}
    static = images.clone()
    with torch.inference_mode():
        other(static)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = other(static)
        static.copy_(images.flip(0))
        graph.replay()
        assert problems.error(y, other(images.flip(0))) <= 1e-6
    assert portable.unavailable(torch.device("cuda")) is None
