"""Digests, damage and kills: a folder of weights always holds something that can be proved and loaded."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from safetensors.torch import save_file

from medmamba_monai.errors import CheckpointError
from medmamba_monai.handlers.checkpoint_folder import CheckpointFolder, first_nonfinite, read_payload
from tests import children

NAME = "checkpoint.pt"


def payload(number: int, size: int = 1000) -> dict[str, Any]:
    return {"weight": torch.full((size,), float(number)), "number": number}


def is_consistent(folder: CheckpointFolder) -> int:
    state = folder.load(NAME)
    assert torch.equal(state["weight"], payload(state["number"], len(state["weight"]))["weight"])
    return int(state["number"])


def test_previous_file_is_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for number in range(4):
        folder.save(NAME, payload(number), {"epoch": number}, keep_previous=True)
    assert is_consistent(folder) == 3
    assert folder.load("checkpoint_previous.pt")["number"] == 2
    assert folder.index()[NAME]["epoch"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.pt", "checkpoint_previous.pt", "checkpoints.json",
    ]  # fmt: skip


def test_killed_at_every_call_something_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every system call of a save in turn, just before and just after it; then the next start repairs."""
    outcomes = []
    for moment in range(60):
        folder = CheckpointFolder(tmp_path / str(moment))
        folder.path.mkdir()
        for number in (0, 1):
            folder.save(NAME, payload(number), {}, keep_previous=True)

        def save_and_die(folder: CheckpointFolder = folder, moment: int = moment) -> None:
            clock = iter(range(10_000))

            def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
                def wrapped(*args: Any, **kwargs: Any) -> Any:
                    if next(clock) == moment:
                        os.kill(os.getpid(), signal.SIGKILL)
                    result = function(*args, **kwargs)
                    if next(clock) == moment:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return result

                return wrapped

            for owner, name in ((os, "fsync"), (os, "open"), (Path, "open"), (Path, "chmod"),
                                (Path, "replace"), (Path, "unlink"), (Path, "hardlink_to")):  # fmt: skip
                setattr(owner, name, deadly(getattr(owner, name)))
            folder.save(NAME, payload(2), {}, keep_previous=True)

        status = children.run(save_and_die)
        outcomes.append(is_consistent(folder))
        folder.load("checkpoint_previous.pt")
        folder.save(NAME, payload(3), {}, keep_previous=True)
        assert is_consistent(folder) == 3
        if status == 0:
            break
    assert status == 0, "the save was never allowed to finish"
    assert len(outcomes) > 20
    assert outcomes == sorted(outcomes)  # first the old one, from some point on the new one
    assert set(outcomes) == {1, 2}


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(NAME, payload(0, 200_000), {}, keep_previous=True)
    generator = random.Random(0)

    def save_for_ever(tell: Callable[[], object]) -> None:
        number = is_consistent(folder)
        while True:
            number += 1
            folder.save(NAME, payload(number, 200_000), {}, keep_previous=True)
            tell()

    reached = [0]
    for _ in range(12):
        children.kill_at_work(save_for_ever, 0.05 * generator.random())
        reached.append(is_consistent(folder))
        folder.load("checkpoint_previous.pt")
    assert reached == sorted(reached)
    assert reached[-1] >= 12


def test_plain_torch_save_does_not_survive_that(tmp_path: Path) -> None:
    """The control: the same kills bite where files are overwritten in place."""
    path = tmp_path / NAME
    torch.save(payload(0, 2_000_000), path)

    def save_for_ever(tell: Callable[[], object]) -> None:
        while True:
            torch.save(payload(1, 2_000_000), path)
            tell()

    broken = 0
    for moment in range(100):
        children.kill_at_work(save_for_ever, 0.001 * moment)
        try:
            torch.load(path, weights_only=True)
        except (RuntimeError, EOFError):
            broken += 1
            break
    assert broken > 0


@pytest.mark.parametrize("damage", ["flip", "truncate", "zeros", "empty", "other"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(NAME, payload(1), {})
    path = tmp_path / NAME
    content = bytearray(path.read_bytes())
    generator = random.Random(1)
    for _ in range(20):
        damaged = bytearray(content)
        if damage == "flip":
            damaged[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        elif damage == "truncate":
            del damaged[generator.randrange(len(content)) :]
        elif damage == "zeros":
            start = generator.randrange(len(content) // 2)
            damaged[start:] = bytes(len(damaged) - start)
        else:
            damaged = bytearray() if damage == "empty" else bytearray(b"text")
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt: the file differs from its digest.*Remedy"):
            folder.load(NAME)


def test_missing_file_and_unreadable_list(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    with pytest.raises(CheckpointError, match="the file is missing"):
        folder.load(NAME)
    folder.save(NAME, payload(1), {})
    (tmp_path / "checkpoints.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"checkpoints\.json: the list of digests is unreadable"):
        folder.load(NAME)


def test_file_that_is_not_listed_is_read(tmp_path: Path) -> None:
    torch.save(payload(4), tmp_path / NAME)
    assert is_consistent(CheckpointFolder(tmp_path)) == 4


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "evil"),))

    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_payload(tmp_path / "evil.pt")
    assert not (tmp_path / "evil").exists()


def test_other_contents_are_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("list.pt", "text.pt", "text.safetensors"):
        with pytest.raises(CheckpointError, match=f"{name}: the file cannot be read"):
            read_payload(tmp_path / name)


def test_safetensors(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3)}, tmp_path / "model.safetensors")
    assert torch.equal(read_payload(tmp_path / "model.safetensors")["weight"], torch.ones(3))


def test_numbers_of_numpy_become_pythons(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    tensor = MetaTensor(torch.ones(2), meta={"file": "a"})
    folder.save(NAME, {"lr": np.float64(0.1), "steps": [np.int64(3)], "flag": np.bool_(True), "t": tensor}, {})
    loaded = folder.load(NAME)
    assert [type(value) for value in (loaded["lr"], loaded["steps"][0], loaded["flag"])] == [float, int, bool]
    assert type(loaded["t"]) is torch.Tensor


def test_the_control_cannot_be_read(tmp_path: Path) -> None:
    torch.save({"lr": np.float64(0.1)}, tmp_path / NAME)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_payload(tmp_path / NAME)


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt\.parts\.x\.0: a PosixPath cannot be stored"):
        folder.save(NAME, {"parts": {"x": [tmp_path]}}, {})
    assert list(tmp_path.iterdir()) == []


def test_first_nonfinite() -> None:
    assert first_nonfinite({"a": torch.ones(2), "b": [torch.arange(2), "text", 3]}) is None
    assert first_nonfinite({"a": {"b": [torch.ones(1), torch.tensor([float("nan")])]}}) == "a.b.1"


def test_the_list_is_plain_json(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(NAME, payload(1), {"epoch": 1, "metric": "val_auc", "value": 0.5})
    entry = json.loads((tmp_path / "checkpoints.json").read_text())["files"][NAME]
    assert entry["bytes"] == (tmp_path / NAME).stat().st_size
    assert entry["value"] == 0.5
