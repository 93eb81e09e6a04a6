"""What packed parts share: panels, the workspace, copies, and the library's refusal."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from medmamba_monai.errors import BackendError
from medmamba_monai.ops.selective_scan import cpu, packed
from medmamba_monai.ops.selective_scan.packed_patches import PackedMerging

MISSING = cpu.unavailable(torch.device("cpu"))
needs_library = pytest.mark.skipif(MISSING is not None, reason=f"C library: {MISSING}")


def merging() -> PackedMerging:
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    return PackedMerging(weight, torch.ones(64), torch.zeros(64), 1e-5, pad=True)


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


def test_a_missing_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "unavailable", lambda device: "its C library is not built; reinstall")
    with pytest.raises(BackendError, match="reinstall"):
        merging()
