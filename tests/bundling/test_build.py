"""Building twice gives the same bytes; the check names every file that is not what the configs say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmamba_monai.bundling.build import LOCK, build, differences, find_root, render_all
from medmamba_monai.cli import main
from medmamba_monai.errors import ConfigError

NAME = "bundles/chest_xray_classification"


def test_the_checked_in_bundles_are_what_the_configs_say(repository: Path) -> None:
    assert differences(repository) == []


def test_building_is_deterministic_and_settles(clone: Path) -> None:
    first = render_all(clone)
    assert first == render_all(clone)
    assert build(clone)
    assert {path: (clone / path).read_bytes() for path in first} == first
    assert build(clone) == []
    assert differences(clone) == []


def test_the_lock_names_every_file_with_its_digest(clone: Path) -> None:
    import hashlib

    build(clone)
    lock = json.loads((clone / LOCK).read_text())
    on_disk = {p.relative_to(clone).as_posix(): p for p in (clone / "bundles").rglob("*") if p.is_file()}
    assert lock == {path: hashlib.sha256(on_disk[path].read_bytes()).hexdigest() for path in sorted(on_disk)}


def test_check_names_edited_missing_and_foreign_files(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(clone)
    edited, gone = clone / NAME / "configs" / "train.json", clone / NAME / "LICENSE"
    edited.write_bytes(edited.read_bytes() + b" ")
    gone.unlink()
    (clone / NAME / "configs" / "note.txt").write_text("by hand")
    (clone / NAME / "models").mkdir()
    (clone / NAME / "models" / "model.pt").write_text("a run's output")
    assert main(["bundle", "build", "--check", "--root", str(clone)]) == 2
    message = capsys.readouterr().err
    assert [line.strip().split(":")[0] for line in message.splitlines()[1:-1]] == [
        f"{NAME}/LICENSE",
        f"{NAME}/configs/train.json",
        f"{NAME}/configs/note.txt",
    ]
    assert main(["bundle", "build", "--root", str(clone)]) == 0
    assert differences(clone) == [f"{NAME}/configs/note.txt: not generated from configs/"]


def test_check_notices_an_edited_lock(clone: Path) -> None:
    build(clone)
    lock = clone / LOCK
    lock.write_text(lock.read_text().replace("a", "b", 1))
    assert differences(clone) == [f"{LOCK}: differs from configs/"]


def test_a_removed_modality_takes_its_generated_files_with_it(clone: Path) -> None:
    build(clone)
    overlay = clone / "configs" / "modalities" / "chest_xray.json"
    overlay.rename(overlay.with_name("other.json"))
    kept = clone / NAME / "models" / "model.pt"
    kept.parent.mkdir()
    kept.write_text("weights")
    build(clone)
    assert [path for path in (clone / NAME).rglob("*") if path.is_file()] == [kept]
    assert differences(clone) == []


def test_no_overlay_and_no_repository_are_errors(clone: Path, tmp_path: Path) -> None:
    assert find_root(clone / "configs") == clone
    (clone / "configs" / "modalities" / "chest_xray.json").unlink()
    with pytest.raises(ConfigError, match="no overlay"):
        render_all(clone)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="configs/base"):
        find_root(empty)
