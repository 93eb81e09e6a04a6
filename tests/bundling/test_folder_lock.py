"""One command at a time works in a folder."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from medmamba_monai.bundling import folder_lock
from medmamba_monai.bundling.folder_lock import hold_folder
from medmamba_monai.errors import ConfigError

pytest.importorskip("fcntl")


def test_a_second_command_is_refused_and_a_later_one_is_not(tmp_path: Path) -> None:
    with hold_folder(tmp_path / "new"), pytest.raises(ConfigError, match="another command.*another --output_dir"):  # noqa: SIM117
        with hold_folder(tmp_path / "new", patience=0.0):
            pytest.fail("held twice")
    with hold_folder(tmp_path / "new", patience=0.0):
        pass


def test_a_process_that_inherited_the_hold_keeps_it_until_its_end(tmp_path: Path) -> None:
    with hold_folder(tmp_path) as held:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=held)
    with pytest.raises(ConfigError, match="or a run that it started"), hold_folder(tmp_path, patience=0.0):
        pytest.fail("held twice")
    child.communicate(b"\n")
    with hold_folder(tmp_path, patience=0.0):
        pass


def test_waits_for_the_end_of_a_run(tmp_path: Path) -> None:
    with hold_folder(tmp_path) as held:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"], pass_fds=held)
    began = time.monotonic()
    with hold_folder(tmp_path):
        assert child.poll() is not None or time.monotonic() > began
    child.wait()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"), hold_folder(tmp_path / "file" / "x"):
        pytest.fail("held")


def test_nothing_is_handed_on_where_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "fcntl", None)  # Windows, where Popen takes no descriptors
    with hold_folder(tmp_path) as held:
        assert held == []
