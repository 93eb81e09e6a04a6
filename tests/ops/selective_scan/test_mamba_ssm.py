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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spatial", [(3, 4), (2, 3, 2)], ids=str)
def test_directional_equals_the_reference(spatial: tuple[int, ...], dtype: torch.dtype, package: ModuleType) -> None:
    inputs = problems.directional(spatial, batch=2, dtype=torch.float32)
    inputs = inputs._replace(**{name: getattr(inputs, name).to(dtype) for name in ("u", "dt", "B", "C")})
    truth = problems.to(inputs, torch.float64)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2  # it keeps a direction's step sizes and result in bfloat16
    y, saved = backend.directional_forward(inputs, True)
    assert saved.numel() == backend.directional_saved_numel(inputs) == 0
    assert y.dtype == dtype and problems.error(y, reference.directional_scan(truth)) <= tolerance
    grad = noise(y)
    grads = backend.directional_backward(grad, inputs, saved)
    expected = reference.directional_backward(grad.double(), truth, saved)
    for name, a, b in zip(inputs._fields, grads, expected, strict=False):
        assert a.dtype == getattr(inputs, name).dtype
        assert problems.error(a, b) <= tolerance, name


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
