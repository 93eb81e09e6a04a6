"""Atomic files: killed at every point, full disk, orphans."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.errors import CheckpointError
from medmamba_monai.handlers.files import (
    remove_orphans,
    require_writable,
    sha256_of,
    stage,
    write_atomic,
    write_json,
)
from tests import children


def test_content_digest_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    assert write_atomic(path, lambda stream: stream.write(b"new")) == hashlib.sha256(b"new").hexdigest()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_writer_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(stream: Any) -> None:
        stream.write(b"half")
        raise KeyError("planted")

    with pytest.raises(KeyError):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_staged_files_can_be_discarded(tmp_path: Path) -> None:
    staged = stage(tmp_path / "a.bin", lambda stream: stream.write(b"12345"))
    assert (staged.size, staged.sha256) == (5, sha256_of(staged.temporary))
    staged.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", range(8))
def test_killed_at_any_point_the_file_is_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    calls = iter(range(100))

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == moment // 2 and moment % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            if next(calls, 0) and moment % 2 == 1 and next(calls) > moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    monkeypatch.setattr(os, "fsync", deadly(os.fsync))
    monkeypatch.setattr(Path, "chmod", deadly(Path.chmod))
    monkeypatch.setattr(Path, "replace", deadly(Path.replace))
    children.run(lambda: write_atomic(path, lambda stream: stream.write(b"new")))
    assert path.read_bytes() in (b"old", b"new")


def test_orphans_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".model.pt.12.medmamba-tmp", "model.pt", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    assert remove_orphans(tmp_path) == [".model.pt.12.medmamba-tmp"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "model.pt"]


def test_full_disk_is_reported_with_path_and_need(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(CheckpointError, match=r"a\.bin: writing failed after 1000 bytes .* bytes are free"):
            write_atomic(path, lambda stream: stream.write(b"x" * 5000))
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    assert children.run(fill) == 0


def test_full_disk_under_torch_save(tmp_path: Path) -> None:
    import torch

    payload = {"weight": torch.zeros(10_000)}

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(CheckpointError, match="writing failed"):
            write_atomic(tmp_path / "a.pt", lambda stream: torch.save(payload, stream))

    assert children.run(fill) == 0
    assert list(tmp_path.iterdir()) == []


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"näme": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"näme": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})


def test_unwritable_folder(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    with pytest.raises(CheckpointError, match="cannot be written"):
        require_writable(Path("/proc/nothing"))
