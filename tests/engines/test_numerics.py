"""File names of batches and buffers that can be restored."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from torch import nn

from medmamba_monai.engines.numerics import BufferSnapshot, all_ranks_agree, batch_files


def test_batch_files_from_every_form() -> None:
    image = MetaTensor(torch.zeros(2, 1), meta={"filename_or_obj": ["a", "b"]})
    assert batch_files({"image": image, "label": 1}) == ["a", "b"]
    assert batch_files({"image": image, "path": ["c", "d"]}, "path") == ["c", "d"]
    assert batch_files([{"file": "e"}, {"file": "f"}]) == ["e", "f"]
    assert batch_files({"image": torch.zeros(1)}) == []
    assert batch_files("text") == []
    assert batch_files(None) == []


def test_snapshot_restores_in_place() -> None:
    norm = nn.BatchNorm1d(2)
    buffers = dict(norm.named_buffers())
    snapshot = BufferSnapshot(norm)
    norm(torch.rand(3, 2))
    expected = {name: buffer.clone() for name, buffer in buffers.items()}
    snapshot.take()
    norm(torch.full((3, 2), float("nan")))
    assert bool(torch.isnan(norm.running_mean).any())
    snapshot.restore()
    for name, buffer in norm.named_buffers():
        assert buffer is buffers[name]
        assert torch.equal(buffer, expected[name])


def test_alone_one_agrees_with_oneself() -> None:
    assert all_ranks_agree(True, torch.device("cpu"))
    assert not all_ranks_agree(False, torch.device("cpu"))
