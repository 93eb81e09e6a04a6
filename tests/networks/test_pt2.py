"""A torch.export archive that asks for unpickling, or carries code, is refused before torch reads it."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medmamba_monai.errors import CheckpointError
from medmamba_monai.networks import pt2


class Bomb:
    """Unpickling this leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return Path.write_text, (self.trace, "read")  # type: ignore[return-value]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A small program."""
    network = torch.nn.Linear(2, 3)
    torch.export.save(torch.export.export(network, (torch.zeros(1, 2),)), tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


def changed(archive: Path, name: str, content: Callable[[bytes], bytes]) -> Path:
    """Copy an archive with one entry, by the end of its name, changed or added."""
    target = archive.with_name("changed.pt2")
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        prefix = source.namelist()[0].split("/")[0]
        entries = {entry: source.read(entry) for entry in source.namelist()}
        old = next((entry for entry in entries if entry.endswith(name)), f"{prefix}/{name}")
        entries[old] = content(entries.get(old, b""))
        for entry, value in entries.items():
            copy.writestr(entry, value)
    return target


def test_a_program_and_its_tensors_are_read(archive: Path) -> None:
    assert pt2.load(archive).module()(torch.zeros(1, 2)).shape == (1, 3)


def test_pickled_tensors_are_refused_unread(archive: Path, tmp_path: Path) -> None:
    def pickled(text: bytes) -> bytes:
        config = json.loads(text)
        for payload in config["config"].values():
            payload["use_pickle"] = True
        return json.dumps(config).encode()

    trace = tmp_path / "trace"
    bomb = changed(archive, "data/weights/weight_0", lambda _: pickle.dumps(Bomb(trace)))
    with pytest.raises(CheckpointError, match=r"model_weights_config\.json.*run code"):
        pt2.load(changed(bomb.rename(tmp_path / "bomb.pt2"), "model_weights_config.json", pickled))
    assert not trace.exists()


def test_pickled_sample_inputs_are_refused_unread(archive: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"inputs": Bomb(trace)}, tmp_path / "bomb.pt")
    content = (tmp_path / "bomb.pt").read_bytes()
    with pytest.raises(CheckpointError, match=r"sample_inputs.*run code"):
        pt2.load(changed(archive, "data/sample_inputs/model.pt", lambda _: content))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["data/aotinductor/model/model.so", "data/constants/custom_obj_0"])
def test_compiled_code_and_objects_are_refused(name: str, archive: Path) -> None:
    with pytest.raises(CheckpointError, match=name):
        pt2.load(changed(archive, name, lambda _: b"\x7fELF"))


def test_damage_is_named(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"changed\.pt2"):
        pt2.load(changed(archive, "models/model.json", lambda text: text[:50]))
    (tmp_path / "no.pt2").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"no\.pt2"):
        pt2.load(tmp_path / "no.pt2")
