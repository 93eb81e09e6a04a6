"""Peak memory is read on every system, or said to be unknown; no benchmark needs a module of Unix alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medmamba_monai.benchmarks import memory
from medmamba_monai.errors import BackendError

UNIX = ("fcntl", "grp", "pwd", "resource", "termios")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A system without /proc."""
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    return monkeypatch


def touched_megabytes(megabytes: int) -> float:
    """Growth of the peak over that before a block of memory was written to."""
    before = memory.reset_peak()
    torch.ones(megabytes << 18)
    return memory.peak_megabytes() - before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_block_of_memory_is_seen_and_forgotten() -> None:
    for _ in range(2):  # the second has the peak of the first behind it
        assert 190 < touched_megabytes(200) < 260
    assert memory.unmeasurable() is None


@pytest.mark.skipif(sys.platform.startswith("win"), reason="Windows has no getrusage")
def test_by_getrusage_the_peak_is_the_same(elsewhere: pytest.MonkeyPatch) -> None:
    block = torch.ones(64 << 18)
    assert memory.unmeasurable() is None
    peak = memory.peak_megabytes()
    assert memory.reset_peak() == pytest.approx(peak, abs=8)
    assert peak > block.numel() / (1 << 18)
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=3 << 20))
    elsewhere.setattr(memory, "_module", lambda name: usage)
    for platform, megabytes in (("darwin", 3), ("linux", 3 << 10)):
        elsewhere.setattr(sys, "platform", platform)
        assert memory.peak_megabytes() == megabytes


def test_on_windows_psutil_tells(elsewhere: pytest.MonkeyPatch) -> None:
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=5 << 20))
    modules = {"psutil": SimpleNamespace(Process=lambda: process)}
    elsewhere.setattr(memory, "_module", modules.get)
    elsewhere.setattr(sys, "platform", "win32")
    assert memory.unmeasurable() is None
    assert memory.peak_megabytes() == memory.reset_peak() == 5


@pytest.mark.parametrize(("platform", "words"), [("win32", "pip install psutil"), ("wasi", "on wasi")])
def test_an_unknown_peak_is_said_to_be_unknown(elsewhere: pytest.MonkeyPatch, platform: str, words: str) -> None:
    elsewhere.setattr(memory, "_module", lambda name: None)
    elsewhere.setattr(sys, "platform", platform)
    assert words in (memory.unmeasurable() or "")
    with pytest.raises(BackendError, match=words):
        memory.peak_megabytes()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_where_the_peak_cannot_be_forgotten_it_is_counted_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("VmHWM:\t 4096 kB\nVmRSS:\t 2048 kB\n", encoding="utf-8")
    monkeypatch.setattr(memory, "_STATUS", status)
    assert memory.reset_peak() == 2
    (tmp_path / "clear_refs").unlink()
    (tmp_path / "clear_refs").mkdir()  # cannot be written to
    assert memory.reset_peak() == 4


@pytest.mark.slow
def test_every_benchmark_can_be_asked_for_without_modules_of_unix() -> None:
    hidden = "".join(f"sys.modules[{name!r}] = None; " for name in UNIX)
    code = (
        f"import sys; {hidden}sys.argv = ['x', '--help']; from medmamba_monai.benchmarks.__main__ import main; main()"
    )
    environment = {**os.environ, "USERNAME": "tester"}  # MONAI asks for the user's name; Windows sets it
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "scaling" in done.stdout
