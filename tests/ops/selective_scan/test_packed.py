"""What packed parts share: panels, the workspace, copies, and the library's refusal."""

from __future__ import annotations

import copy
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from medmamba_monai import MedMamba
from medmamba_monai.errors import BackendError, ConfigError
from medmamba_monai.ops.selective_scan import cpu, packed
from medmamba_monai.ops.selective_scan.packed_patches import PackedMerging

from . import problems

MISSING = cpu.unavailable(torch.device("cpu"))
needs_library = pytest.mark.skipif(MISSING is not None, reason=f"C library: {MISSING}")


def merging() -> PackedMerging:
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    return PackedMerging(weight, torch.ones(64), torch.zeros(64), 1e-5, pad=True)


def optimized_block() -> packed.Packed:
    """A block of 32 channels."""
    torch.manual_seed(0)
    network = MedMamba(num_classes=2, depths=(1, 1, 1, 1), dims=(32, 64, 128, 256)).eval().optimize_for_inference()
    stage: Any = network.stages[0]
    return stage.blocks[0].packed


def test_panels_hold_every_weight_once_and_zeros_behind_the_last() -> None:
    weight = torch.arange(1.0, 2 * 20 * 3 + 1).view(2, 20, 3)
    cut = packed.panels(weight)
    assert cut.shape == (2, 2, 3, 16)
    assert torch.equal(cut.transpose(-1, -2).flatten(1, 2)[:, :20], weight)
    assert cut[:, 1, :, 4:].abs().max() == 0


def test_the_workspace_is_kept_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(packed._kept, "memory", raising=False)
    monkeypatch.setattr(packed, "WORKSPACE", 1000)
    first = packed.workspace(900)
    assert packed.workspace(800).data_ptr() == first.data_ptr()
    assert packed.workspace(1001).numel() == 1001
    assert packed.workspace(900).data_ptr() == first.data_ptr()


@needs_library
def test_copies_work_and_share_no_pointers() -> None:
    one = merging()
    x = torch.randn(1, 4, 4, 16)
    expected = one(x)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        one.tensors["product"].zero_()
        assert torch.equal(other(x), expected)
        one.tensors["product"].copy_(other.tensors["product"])


@needs_library
def test_weights_given_are_copied_and_made_dense() -> None:
    weight = torch.randn(64, 32).T
    one = PackedMerging(weight, torch.ones(64), torch.zeros(64), 1e-5, pad=True)
    x = torch.randn(1, 4, 4, 16)
    before = one(x)
    weight.zero_()
    assert torch.equal(one(x), before)
    assert all(t.is_contiguous() and t.dtype == torch.float32 for t in one.tensors.values())


@needs_library
@pytest.mark.parametrize("together", [1, 1 << 23])
def test_parts_in_a_row_equal_one_after_the_other(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    """Blocks work in place; with poisoned memory, what is read before it is written shows."""
    monkeypatch.setattr(cpu, "empty", lambda shape: torch.full(tuple(shape), torch.nan))
    monkeypatch.delattr(packed._kept, "memory", raising=False)
    monkeypatch.setattr(packed, "_TOGETHER", together)
    block = optimized_block()
    parts = [merging(), block, block, block]
    chain = packed.PackedChain(parts)
    for size in [(3, 7, 5), (1, 12, 12), *((1, side, 4) for side in range(2, 14)), (3, 7, 5)]:
        x = torch.randn(*size, 16, generator=torch.Generator().manual_seed(1))
        want = x
        for part in parts:
            want = part(want)
        assert torch.equal(chain(x), want)
        assert torch.equal(copy.deepcopy(chain)(x), want)
    assert not torch.equal(want, parts[0](x))


@needs_library
def test_memory_is_held_while_the_library_works_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large to be kept for the next call, it must not be given back before this one ends."""
    size, forward = packed._entry_points()
    made: list[weakref.ref[torch.Tensor]] = []

    def memory(count: int) -> torch.Tensor:
        tensor = torch.empty(count)
        made.append(weakref.ref(tensor))
        return tensor

    def watched(*arguments: Any) -> int:
        assert made[-1]() is not None
        return int(forward(*arguments))

    monkeypatch.setattr(packed, "workspace", memory)
    monkeypatch.setattr(packed, "_entry_points", lambda: (size, watched))
    merging()(torch.randn(1, 4, 4, 16))
    assert made[-1]() is None


@needs_library
@pytest.mark.parametrize("shape", [(4, 4, 16), (1, 4, 4, 15), (1, 0, 0, 16), (1, 1, 3, 16)])
def test_maps_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    weight = torch.randn(32, 64)
    part = PackedMerging(weight, torch.ones(64), torch.zeros(64), 1e-5, pad=False)
    with pytest.raises(ConfigError, match="PackedMerging"):
        packed.PackedChain([part, optimized_block()])(torch.randn(shape))


@needs_library
def test_chains_may_be_used_by_several_threads() -> None:
    chain = packed.PackedChain([merging(), optimized_block()])
    maps = [torch.randn(2, 5 + side, 6, 16) for side in range(16)]
    want = [chain(x) for x in maps]
    with ThreadPoolExecutor(4) as pool:
        for got, expected in zip(pool.map(chain, maps * 4), want * 4, strict=True):
            assert torch.equal(got, expected)


@needs_library
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_number_of_threads_is_that_of_pytorch(count: int) -> None:
    chain, x = packed.PackedChain([merging(), optimized_block()]), torch.randn(2, 40, 40, 16)
    want, before = chain(x), torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with problems.team_of_python() as asked:
            assert torch.equal(chain(x), want)
    finally:
        torch.set_num_threads(before)
    assert set(asked) == ({count} if count > 1 else set())


def test_a_missing_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "unavailable", lambda device: "its C library is not built; reinstall")
    with pytest.raises(BackendError, match="reinstall"):
        merging()
