"""Reading weights: what is refused and how, and what is adapted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from medmamba_monai.errors import CheckpointError
from medmamba_monai.networks import (
    MedMamba,
    load_pretrained,
    load_strictly,
    load_weights,
    to_released_state_dict,
)


def small(**options: object) -> MedMamba:
    return MedMamba(**{"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64), "num_classes": 3, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_reads_pt_and_safetensors_alike(tmp_path: Path, wrap: str | None) -> None:
    state = small().state_dict()
    torch.save(state if wrap is None else {wrap: state}, tmp_path / "model.pt")
    save_file(state, tmp_path / "model.safetensors")
    for name in ("model.pt", "model.safetensors"):
        loaded = load_weights(tmp_path / name)
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[k], state[k]) for k in state)


class _Planted:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch planted",)


def test_refuses_pickles_and_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": _Planted()}, tmp_path / "hostile.pt")
    with pytest.raises(CheckpointError, match=r"hostile\.pt.*run code"):
        load_weights(tmp_path / "hostile.pt")
    assert not (tmp_path / "planted").exists()
    torch.save(small().state_dict(), tmp_path / "good.pt")
    whole = (tmp_path / "good.pt").read_bytes()
    save_file(small().state_dict(), tmp_path / "good.safetensors")
    for name, content in {
        "cut.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "text.pt": b"hello",
        "cut.safetensors": (tmp_path / "good.safetensors").read_bytes()[:1000],
        "text.safetensors": b"hello there, this is text",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            load_weights(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        load_weights(tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="no such weights file"):
        load_weights(tmp_path / "absent.pt")


def test_strict_loading_names_what_differs() -> None:
    network = small()
    state = dict(network.state_dict())
    state["head.weight"] = torch.zeros(5, 64)
    state["extra"] = state.pop("patch_embed.norm.weight")
    with pytest.raises(CheckpointError) as caught:
        load_strictly(network, state, "here.pt")
    for text in (
        "here.pt",
        "missing: patch_embed.norm.weight",
        "unknown: extra",
        "head.weight (5, 64) instead of (3, 64)",
    ):
        assert text in str(caught.value)


def test_pretrained_weights_for_other_classes_and_channels(tmp_path: Path) -> None:
    source = small(num_classes=5)
    torch.save(source.state_dict(), tmp_path / "source.pt")
    network = small(in_channels=1)
    fresh = network.head.weight.detach().clone()
    notes = load_pretrained(network, tmp_path / "source.pt")
    assert "from 3 to 1 image channels" in notes[0]
    assert "head for 5 classes replaced by a fresh one for 3" in notes[1]
    assert torch.equal(network.head.weight, fresh)
    grey = torch.rand(2, 1, 32, 32)
    a = source.eval().forward_features(grey.expand(-1, 3, -1, -1))
    b = network.eval().forward_features(grey)
    assert all(torch.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(a, b, strict=True))
    back = small(in_channels=3)
    torch.save(network.state_dict(), tmp_path / "grey.pt")
    assert len(load_pretrained(back, tmp_path / "grey.pt")) == 1
    c = back.eval().forward_features(grey.expand(-1, 3, -1, -1))
    assert all(torch.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(a, c, strict=True))


def test_pretrained_takes_released_weights_and_refuses_other_sizes(tmp_path: Path) -> None:
    source = small()
    torch.save(to_released_state_dict(source), tmp_path / "released.pt")
    network = small()
    assert load_pretrained(network, tmp_path / "released.pt") == []
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), network.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="unknown: stages"):
        load_pretrained(
            MedMamba(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), spatial_dims=2, scan="raster"),
            _deeper(tmp_path),
        )


def _deeper(folder: Path) -> Path:
    torch.save(MedMamba(depths=(2, 1, 1, 1), dims=(8, 16, 32, 64)).state_dict(), folder / "deeper.pt")
    return folder / "deeper.pt"
