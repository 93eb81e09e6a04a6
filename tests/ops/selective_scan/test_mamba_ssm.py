"""The mamba_ssm backend with a stand-in for the package: what it is called with, and what comes back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from medmamba_monai.errors import BackendError
from medmamba_monai.ops.selective_scan import dispatch, portable, reference
from medmamba_monai.ops.selective_scan import mamba_ssm as backend
from medmamba_monai.ops.selective_scan.contract import DirectionalInputs, SequenceInputs

from . import problems

CUDA = torch.device("cuda")


def stand_in_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None,
    delta_bias: Tensor | None = None, delta_softplus: bool = False, return_last_state: bool = False,
) -> Any:  # fmt: skip
    """The formula of the package's kernel, with the kernel's checks of its arguments."""
    assert u.dtype == delta.dtype == B.dtype == C.dtype and u.dtype != torch.float64
    assert all(t.dtype == torch.float32 for t in (A, D, delta_bias) if t is not None)
    assert all(t.stride(-1) == 1 for t in (u, delta, B, C)) and z is None
    assert u.shape == delta.shape and A.shape[0] == u.shape[1] and B.dim() == 4
    y, last = reference.sequence_scan(SequenceInputs(u, delta, A, B, C, D, delta_bias, None, delta_softplus))
    return (y, last.detach()) if return_last_state else y


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package of the same name that has its kernel."""
    names = ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface")
    for name in names:
        module = ModuleType(name)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    module.selective_scan_cuda = object()  # type: ignore[attr-defined]
    module.selective_scan_fn = stand_in_scan  # type: ignore[attr-defined]
    yield module


def noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(like.dtype)


def in_precision(inputs: DirectionalInputs, dtype: torch.dtype) -> DirectionalInputs:
    """Activations in a precision, parameters in float32."""
    return inputs._replace(**{name: getattr(inputs, name).to(dtype) for name in ("u", "dt", "B", "C")})


def run(inputs: DirectionalInputs) -> list[Tensor]:
    """The scan's result and its gradients."""
    y, saved = backend.directional_forward(inputs, True)
    assert saved.numel() == backend.directional_saved_numel(inputs) == 0
    got = [y, *backend.directional_backward(noise(y), inputs, saved)]
    assert [t.dtype for t in got] == [inputs.u.dtype, *(t.dtype for t in inputs[:-1])]
    return got


def truth_of(inputs: DirectionalInputs, grad: Tensor) -> list[Tensor]:
    """The same in float64, of the inputs as they are rounded."""
    exact = problems.to(inputs, torch.float64)
    return [reference.directional_scan(exact), *reference.directional_backward(grad.double(), exact, grad)]


def errors(got: list[Tensor], want: list[Tensor]) -> dict[str, float]:
    names = ("y", *DirectionalInputs._fields[:-1])
    return {name: problems.error(a, b) for name, a, b in zip(names, got, want, strict=True)}


TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("spatial", [(3, 4), (2, 3, 2)], ids=str)
def test_directional_equals_the_reference(spatial: tuple[int, ...], dtype: torch.dtype, package: ModuleType) -> None:
    inputs = in_precision(problems.directional(spatial, batch=2, dtype=torch.float32), dtype)
    got = run(inputs)
    found = errors(got, truth_of(inputs, noise(got[0])))
    assert max(found.values()) <= TOLERANCES[dtype], found


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_strided_inputs(dtype: torch.dtype, package: ModuleType) -> None:
    """Slices of one projection, a transposed map and gradient: the stand-in refuses what the kernel cannot read."""
    inputs = in_precision(problems.directional((3, 4), batch=2, dtype=torch.float32), dtype)
    dt, B, C = torch.cat([inputs.dt, inputs.B, inputs.C], dim=-1).split([2, 4, 4], dim=-1)
    u = inputs.u.transpose(1, 2).contiguous().transpose(1, 2)
    A, D = inputs.A.mT.contiguous().mT, inputs.D.T.contiguous().T
    assert not any(t.is_contiguous() for t in (u, dt, B, C, A, D))
    strided = inputs._replace(u=u, dt=dt, A=A, B=B, C=C, D=D)
    got = run(strided)
    grad = noise(got[0])
    for a, b in zip(got, run(inputs), strict=True):
        assert torch.equal(a, b) and a.is_contiguous()
    turned = backend.directional_backward(grad.transpose(1, 2).contiguous().transpose(1, 2), strided, got[0])
    for a, b in zip(turned, got[1:], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_small_steps(dtype: torch.dtype, package: ModuleType) -> None:
    """Decays that stay near one."""
    inputs = problems.directional((3, 4), batch=2, dtype=torch.float32, step_scale=0.01)
    inputs = in_precision(inputs._replace(dt_bias=inputs.dt_bias - 6.0), dtype)
    got = run(inputs)
    found = errors(got, truth_of(inputs, noise(got[0])))
    assert max(found.values()) <= TOLERANCES[dtype], found


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_large_steps(dtype: torch.dtype, package: ModuleType) -> None:
    """Decays that underflow to zero and steps of exp(-50).

    The kernel takes step sizes before their softplus in the precision of u: in bfloat16 they are right to 0.2, and what
    follows from them is held to the truth of the steps so rounded.
    """
    inputs = in_precision(problems.directional((3, 4), batch=2, dtype=torch.float32, step_scale=50.0), dtype)
    got = run(inputs)
    weight, dt = (t.to(dtype) for t in (inputs.dt_weight, inputs.dt))
    steps = torch.einsum("blkr,ker->blke", dt.double(), weight.double()).to(dtype)
    assert steps.abs().max() > 100
    as_given = inputs._replace(dt=steps, dt_weight=torch.eye(6).expand(4, -1, -1))
    want = truth_of(as_given, noise(got[0]))
    d_steps = want[2]
    want[2] = torch.einsum("blke,ker->blkr", d_steps, inputs.dt_weight.double())
    want[7] = torch.einsum("blke,blkr->ker", d_steps, inputs.dt.double())
    found = errors(got, want)
    assert max(found.values()) <= TOLERANCES[dtype], found


def sequence(**options: Any) -> SequenceInputs:
    inputs = problems.sequence(7, **options)
    tensors = [None if t is None else t.float() for t in inputs[:-1]]
    return SequenceInputs(*tensors, softplus=inputs.softplus)._replace(initial_state=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"optional": False, "softplus": False}], ids=str)
def test_sequence_equals_the_reference(options: dict[str, bool], package: ModuleType) -> None:
    inputs = sequence(**options)
    y, last, saved = backend.sequence_forward(inputs, True)
    expected_y, expected_last = reference.sequence_scan(inputs)
    assert problems.error(y, expected_y) <= 1e-5 and problems.error(last, expected_last) <= 1e-5
    grad = noise(y)
    grads = backend.sequence_backward(grad, torch.zeros_like(last), inputs, saved)
    expected = reference.sequence_backward(grad, torch.zeros_like(last), inputs, saved)
    for a, b in zip(grads, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert problems.error(a, b) <= 1e-5


def test_a_wrong_kernel_is_seen(package: ModuleType) -> None:
    """The comparison above can fail: a kernel that leaves out the skip is far off."""

    def without_skip(*tensors: Tensor, **options: Any) -> Any:
        return stand_in_scan(*tensors, **{**options, "D": None})

    package.selective_scan_fn = without_skip  # type: ignore[attr-defined]
    inputs = problems.directional((3, 4), dtype=torch.float32)
    y, _ = backend.directional_forward(inputs, False)
    assert problems.error(y, reference.directional_scan(inputs)) > 1e-2


def test_refuses_what_the_kernel_lacks(package: ModuleType) -> None:
    inputs = sequence()
    started = inputs._replace(initial_state=torch.zeros(2, 6, 4))
    with pytest.raises(BackendError, match="'mamba_ssm' takes no initial_state"):
        backend.sequence_forward(started, False)
    y, last, saved = backend.sequence_forward(inputs, True)
    with pytest.raises(BackendError, match="no gradient of the last state"):
        backend.sequence_backward(torch.ones_like(y), torch.ones_like(last), inputs, saved)


def test_double_precision_takes_the_portable_path(package: ModuleType) -> None:
    inputs: DirectionalInputs = problems.directional((2, 3))
    y, saved = backend.directional_forward(inputs, True)
    assert torch.equal(y, portable.directional_forward(inputs, True)[0])
    assert saved.numel() == backend.directional_saved_numel(inputs)


def test_available_with_its_kernel(package: ModuleType) -> None:
    assert backend.unavailable(CUDA) is None
    assert backend.unavailable(torch.device("cpu")) == "its kernel runs on CUDA GPUs, not on cpu"


def test_reason_when_the_kernel_was_not_built(package: ModuleType) -> None:
    package.selective_scan_cuda = None  # type: ignore[attr-defined]
    reason = backend.unavailable(CUDA)
    assert reason is not None and "lacks its CUDA kernel" in reason and "MAMBA_KEEP_CUDA_BUILD=TRUE" in reason


@pytest.fixture
def here(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stand-in runs on the CPU in the place of a GPU; what is known of the backend is forgotten."""
    monkeypatch.setattr(backend, "_DEVICE", "cpu")
    dispatch.unavailable.cache_clear()
    yield package
    dispatch.unavailable.cache_clear()


def test_a_right_kernel_passes_the_self_test(here: ModuleType) -> None:
    assert backend.self_test() is None
    assert dispatch.resolve("cuda", "mamba_ssm") == "mamba_ssm"
    del here.selective_scan_cuda  # a release that keeps its kernel elsewhere is asked by a call
    assert backend.unavailable(CUDA) is None and backend.self_test() is None


@pytest.mark.parametrize("spoilt", ["D", "C", "delta_bias", "last", "gradient"])
def test_a_wrong_kernel_is_refused(spoilt: str, here: ModuleType) -> None:
    def wrong(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, **options: Any) -> Any:
        if spoilt in ("D", "delta_bias"):
            options[spoilt] = options[spoilt] * 1.01
        y, last = stand_in_scan(u, delta, A, B, C.flip(1) if spoilt == "C" else C, **options)
        if spoilt == "gradient":
            y = y + (u - u.detach()) * 0.01  # the same values
        return y, last * 1.01 if spoilt == "last" else last

    here.selective_scan_fn = wrong  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match="mamba-ssm is wrong on this machine: in the plain scan .* differs"):
        dispatch.resolve("cuda", "mamba_ssm")


def test_reason_when_only_running_it_tells(here: ModuleType) -> None:
    def no_kernel(*tensors: Tensor, **options: Any) -> None:
        raise RuntimeError("selective_scan_cuda is not installed")

    here.selective_scan_fn = no_kernel  # type: ignore[attr-defined]
    reason = backend.self_test()
    assert reason is not None and "selective_scan_cuda is not installed" in reason and "nvcc" in reason
    del here.selective_scan_fn
    assert "has no selective_scan_fn" in str(backend.unavailable(CUDA))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_reason_without_a_gpu(package: ModuleType) -> None:
    """The package may be there where its GPU is not."""
    assert "cannot run its CUDA kernel" in str(backend.self_test())


def test_reason_when_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'mamba_ssm'", name="mamba_ssm")

    monkeypatch.setattr(backend.importlib, "import_module", missing)
    reason = backend.unavailable(CUDA)
    assert reason is not None and "mamba-ssm is not installed" in reason and "nvcc" in reason


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ModuleNotFoundError("No module named 'einops'", name="einops"),
            "which is not installed; `pip install einops`",
        ),
        (ImportError("undefined symbol: _ZN3c10"), "cannot be imported (undefined symbol"),
    ],
    ids=["dependency", "symbol"],
)
def test_reason_when_its_import_fails(error: ImportError, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(backend.importlib, "import_module", failing)
    reason = backend.unavailable(CUDA)
    assert reason is not None and expected in reason


def test_importing_the_backend_does_not_import_the_package() -> None:
    code = "import sys; import medmamba_monai.ops.selective_scan.mamba_ssm; assert 'mamba_ssm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
