"""Patch embedding and merging in C against the layers in float64."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai.errors import BackendError
from medmamba_monai.networks.layers import PatchEmbedding, PatchMerging
from medmamba_monai.ops.selective_scan import cpu, packed
from medmamba_monai.ops.selective_scan.packed_patches import PackedEmbedding, PackedMerging

from . import problems

MISSING = cpu.unavailable(torch.device("cpu"))
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"C library: {MISSING}")
TOLERANCE = 1e-5


@pytest.fixture(params=() if MISSING else cpu.variants())
def simd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An instruction set, and memory that starts as NaN."""
    monkeypatch.setenv(cpu.SIMD_VARIABLE, request.param)
    monkeypatch.setattr(cpu, "empty", lambda shape: torch.full(tuple(shape), torch.nan))
    monkeypatch.delattr(packed._kept, "memory", raising=False)
    return str(request.param)


def randomised(layer: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0.3)
    return layer.requires_grad_(False)


def embedding(channels: int, dim: int, pad: bool) -> tuple[PatchEmbedding, PackedEmbedding]:
    layer = randomised(PatchEmbedding(2, channels, dim, pad))
    norm, conv = layer.norm, layer.proj
    return layer, PackedEmbedding(conv.weight, conv.bias, norm.weight, norm.bias, norm.eps, pad)


def merging(dim: int, pad: bool) -> tuple[PatchMerging, PackedMerging]:
    layer = randomised(PatchMerging(2, dim, pad))
    return layer, PackedMerging(layer.reduction.weight, layer.norm.weight, layer.norm.bias, layer.norm.eps, pad)


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize(("channels", "dim"), [(1, 16), (3, 96)])
@pytest.mark.parametrize("size", [(4, 4), (33, 46), (64, 40)])
def test_embedding(simd: str, size: tuple[int, int], channels: int, dim: int, pad: bool) -> None:
    layer, fast = embedding(channels, dim, pad)
    x = torch.randn(2, channels, *size)
    assert problems.error(fast(x), layer.double()(x.double())) <= TOLERANCE
    moved = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(fast(moved), fast(x))


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("dim", [16, 40])
@pytest.mark.parametrize("size", [(2, 2), (5, 9), (24, 31)])
def test_merging(simd: str, size: tuple[int, int], dim: int, pad: bool) -> None:
    layer, fast = merging(dim, pad)
    x = torch.randn(3, *size, dim)
    assert problems.error(fast(x), layer.double()(x.double())) <= TOLERANCE


def test_threads_change_nothing(simd: str) -> None:
    x, (_, fast) = torch.randn(3, 14, 18, 32), merging(32, True)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = fast(x)
        for count in (2, 5, 16):
            torch.set_num_threads(count)
            assert torch.equal(fast(x), alone)
    finally:
        torch.set_num_threads(before)


def test_a_planted_error_is_seen(simd: str) -> None:
    layer, _ = merging(16, True)
    weight = layer.reduction.weight * 1.001
    wrong = PackedMerging(weight, layer.norm.weight, layer.norm.bias, layer.norm.eps, True)
    x = torch.randn(1, 6, 6, 16)
    assert problems.error(wrong(x), layer.double()(x.double())) > 10 * TOLERANCE


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BackendError, match="48 numbers become 20"):
        embedding(3, 20, True)
