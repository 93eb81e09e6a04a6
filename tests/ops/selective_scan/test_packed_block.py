"""A block in C against its formulas in float64, on every instruction set that runs here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medmamba_monai.errors import BackendError
from medmamba_monai.ops import direction_count, index_table
from medmamba_monai.ops.selective_scan import cpu, packed, packed_block, reference
from medmamba_monai.ops.selective_scan.contract import DirectionalInputs
from medmamba_monai.ops.selective_scan.packed_block import BlockWeights, PackedBlock

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


def random_weights(half: int, states: int = 4, scan: str = "cross", seed: int = 0) -> BlockWeights:
    """Weights that keep every signal of order one, so that every part matters in the output."""
    generator = torch.Generator().manual_seed(seed)
    inner, rank, k = 2 * half, -(-half // 16), direction_count(scan, 2)

    def draw(*shape: int, fan: int = 1, around: float = 0.0) -> Tensor:
        return around + torch.randn(*shape, generator=generator) * fan**-0.5

    return BlockWeights(
        scale=draw(half, around=1.0), shift=draw(half),
        conv1=draw(half, half, 3, 3, fan=9 * half), conv1_bias=draw(half),
        conv2=draw(half, half, 3, 3, fan=9 * half), conv2_bias=draw(half),
        conv3=draw(half, half, fan=half), conv3_bias=draw(half),
        norm=draw(half, around=1.0), norm_bias=draw(half), in_proj=draw(2 * inner, half, fan=half),
        depthwise=draw(inner, 3, 3, fan=9), depthwise_bias=draw(inner),
        x_proj=draw(k, rank + 2 * states, inner, fan=inner), A=-torch.exp(0.5 * draw(k, inner, states)),
        D=draw(k, inner), dt_weight=draw(k, inner, rank, fan=rank), dt_bias=draw(k, inner, around=-1.0),
        out_norm=draw(inner, around=1.0), out_norm_bias=draw(inner), out_proj=draw(half, inner, fan=inner),
        epsilons=(1e-5, 1e-5),
    )  # fmt: skip


def formulas(weights: BlockWeights, x: Tensor, scan: str = "cross") -> Tensor:
    """The block written out in float64, with the reference scan."""
    w = BlockWeights(*(t.double() for t in weights[:-1]), epsilons=weights.epsilons)
    half, states = len(w.scale), w.A.shape[2]
    left, right = x.double().chunk(2, -1)
    left = (left * w.scale + w.shift).permute(0, 3, 1, 2)
    left = F.relu(F.conv2d(left, w.conv1, w.conv1_bias, padding=1))
    left = F.relu(F.conv2d(left, w.conv2, w.conv2_bias, padding=1))
    left = F.relu(F.conv2d(left, w.conv3[..., None, None], w.conv3_bias)).permute(0, 2, 3, 1)
    hidden, gate = (F.layer_norm(right, (half,), w.norm, w.norm_bias, w.epsilons[0]) @ w.in_proj.T).chunk(2, -1)
    kernel = w.depthwise[:, None]
    hidden = F.conv2d(hidden.permute(0, 3, 1, 2), kernel, w.depthwise_bias, padding=1, groups=2 * half)
    u = F.silu(hidden).permute(0, 2, 3, 1).flatten(1, 2)
    dt, B, C = torch.einsum("ble,koe->blko", u, w.x_proj).split([w.dt_weight.shape[2], states, states], -1)
    order = index_table(scan, tuple(x.shape[1:3]))
    y = reference.directional_scan(DirectionalInputs(u, dt, w.A, B, C, w.D, w.dt_weight, w.dt_bias, order))
    y = F.layer_norm(y, (2 * half,), w.out_norm, w.out_norm_bias, w.epsilons[1]).view(gate.shape) * F.silu(gate)
    return x + torch.stack([left, y @ w.out_proj.T], -1).flatten(-2)


# 16 and 48 channels: narrow convolutions on tiles of 4; 80: wide ones; 144: tiles of 2
@pytest.mark.parametrize("half", [16, 48, 80, 144])
@pytest.mark.parametrize(("size", "batch"), [((1, 1), 1), ((5, 7), 3), ((9, 14), 1), ((1, 18), 2)])
def test_equals_the_formulas(simd: str, half: int, size: tuple[int, int], batch: int) -> None:
    weights = random_weights(half)
    x = torch.randn(batch, *size, 2 * half, generator=torch.Generator().manual_seed(1))
    assert problems.error(PackedBlock(weights, "cross")(x), formulas(weights, x)) <= TOLERANCE


@pytest.mark.parametrize("scan", ["raster", "bidirectional", "hilbert"])
def test_every_order_and_number_of_states(simd: str, scan: str) -> None:
    weights = random_weights(16, states=5, scan=scan)
    x = torch.randn(2, 6, 9, 32)
    assert problems.error(PackedBlock(weights, scan)(x), formulas(weights, x, scan)) <= TOLERANCE


@pytest.mark.parametrize("half", [48, 144])
def test_threads_and_parts_change_nothing(simd: str, half: int, monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = PackedBlock(random_weights(half), "cross"), torch.randn(3, 11, 13, 2 * half)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = block(x)
        for count in (2, 3, 16):
            torch.set_num_threads(count)
            assert torch.equal(block(x), alone)
        monkeypatch.setattr(packed, "_TOGETHER", 1)
        assert torch.equal(block(x), alone)
    finally:
        torch.set_num_threads(before)


def test_non_contiguous_maps(simd: str) -> None:
    block, x = PackedBlock(random_weights(16), "cross"), torch.randn(2, 6, 5, 32)
    assert torch.equal(block(x.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)), block(x))


def test_nan_is_not_swallowed(simd: str) -> None:
    block = PackedBlock(random_weights(16), "cross")
    for channel in (0, 31):
        x = torch.randn(1, 4, 4, 32)
        x[0, 1, 2, channel] = torch.nan
        y = block(x)
        assert y.isnan().any()
        # the right half reaches every pixel through the scan, the left one the neighbourhood of its convolutions
        assert y[..., channel % 2 :: 2].isnan().all() or channel == 0


@pytest.mark.parametrize("name", [name for name in BlockWeights._fields if name != "epsilons"])
def test_every_weight_matters(name: str) -> None:
    """The comparison above must fail when one tensor is changed a little."""
    weights, x = random_weights(16), torch.randn(1, 7, 6, 32, generator=torch.Generator().manual_seed(1))
    wrong = weights._replace(**{name: getattr(weights, name) * 1.02})
    assert problems.error(PackedBlock(wrong, "cross")(x), formulas(weights, x)) > 10 * TOLERANCE


@pytest.mark.parametrize("tile", [2, 4])
def test_transformed_weights_keep_their_sum(tile: int) -> None:
    """At the points 0 and infinity a transformed filter is its first and its last corner; between them its sums."""
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    points = packed_block.transform_convolution(weight, tile).view(tile + 2, tile + 2, 3, 2)
    scale = {2: 1, 4: 1 / 4}[tile]
    assert torch.allclose(points[0, 0], weight[..., 0, 0] * scale**2)
    assert torch.allclose(points[-1, -1], weight[..., 2, 2])
    middle = {2: 1 / 2, 4: -1 / 6}[tile]
    assert torch.allclose(points[1, 1], weight.sum((2, 3)) * middle**2)


def test_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BackendError, match="no multiple of 16"):
        PackedBlock(random_weights(24), "cross")
