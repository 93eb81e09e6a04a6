"""Uploading, with a recorder in place of the hub: what is sent, what is refused, and that no token shows."""

from __future__ import annotations

import fnmatch
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medmamba_monai import cli
from medmamba_monai.bundling.publish import publish
from medmamba_monai.bundling.release import Release
from medmamba_monai.errors import CheckpointError, ConfigError

SECRET = "hf_SecretSecretSecret"


class Recorder:
    """Takes the place of huggingface_hub.HfApi: keeps what it is told, and the files as the hub filters them."""

    calls: list[tuple[str, dict[str, Any]]]
    files: dict[str, bytes]
    fail: Exception | None

    def __init__(self, token: str | None = None) -> None:
        type(self).calls.append(("login", {"token": token}))

    def create_repo(self, **given: Any) -> None:
        self.calls.append(("create_repo", given))

    def create_tag(self, **given: Any) -> None:
        self.calls.append(("create_tag", given))

    def upload_folder(self, **given: Any) -> str:
        if type(self).fail is not None:
            raise type(self).fail
        self.calls.append(("upload_folder", given))
        folder = Path(given["folder_path"])
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and not any(fnmatch.fnmatch(name, p) for p in given["ignore_patterns"]):
                self.files[name] = path.read_bytes()
        return f"https://hub/{given['repo_id']}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    import monai.bundle.scripts

    Recorder.calls, Recorder.files, Recorder.fail = [], {}, None
    fake = SimpleNamespace(HfApi=Recorder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.setattr(monai.bundle.scripts, "huggingface_hub", fake)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return Recorder


def test_a_trained_bundle_is_uploaded_and_tagged(bundle: Path, weights: Path, hub: type[Recorder]) -> None:
    (bundle / "eval").mkdir()
    (bundle / "eval" / "predictions.csv").write_text("private")
    sent = publish(bundle, "org/name", Release(weights=weights), token=SECRET)
    assert [name for name, _ in hub.calls] == ["login", "create_repo", "upload_folder", "create_tag"]
    told = dict(hub.calls)
    assert told["login"]["token"] == SECRET
    assert told["create_repo"] == {"repo_id": "org/name", "private": True, "exist_ok": True}
    assert told["create_tag"]["tag"] == sent.version == "0.1.0"
    assert set(sent.files) == set(hub.files)
    assert {path: len(content) for path, content in hub.files.items()} == sent.files
    assert {"README.md", "LICENSE", "models/model.pt", "models/model.json", "lock.json"} <= set(sent.files)
    assert hub.files["models/model.pt"] == weights.read_bytes()
    assert hub.files["README.md"].startswith(b"---\ntags:\n- monai\n")
    assert not [path for path in hub.files if path.startswith("eval")]
    assert not (bundle / "README.md").exists()


def test_a_dry_run_lists_what_would_be_uploaded_and_needs_no_hub(
    bundle: Path, weights: Path, hub: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(weights=weights, vendor=True)
    real = publish(bundle, "org/name", release)
    hub.calls.clear()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    dry = publish(bundle, "org/name", release, dry_run=True)
    assert hub.calls == []
    assert list(dry.files) == list(real.files)
    assert {p: n for p, n in dry.files.items() if p != "README.md"} == {
        p: n for p, n in real.files.items() if p != "README.md"
    }


def test_weights_trained_in_the_bundle_are_taken(bundle: Path, weights: Path, hub: type[Recorder]) -> None:
    for part in ("models", "eval"):
        (weights.parents[1] / part).rename(bundle / part)
    sent = publish(bundle, "org/name", Release(), public=True)
    assert "models/model.pt" in sent.files
    assert dict(hub.calls)["create_repo"]["private"] is False
    assert not [path for path in hub.files if path.startswith("eval/")]


def test_untrained_weights_are_refused(bundle: Path, generated_weights: Path, hub: type[Recorder]) -> None:
    with pytest.raises(CheckpointError, match="no trained weights"):
        publish(bundle, "org/name", Release())
    with pytest.raises(CheckpointError, match="random"):
        publish(bundle, "org/name", Release(weights=generated_weights))
    with pytest.raises(CheckpointError, match="random"):
        publish(bundle, "org/name", Release(weights=generated_weights), dry_run=True)
    assert hub.calls == []


@pytest.mark.parametrize("repo_id", ["name", "a/b/c", "org/", "/name", "org/na me", "../name"])
def test_a_name_the_hub_does_not_know_is_refused(repo_id: str, bundle: Path) -> None:
    with pytest.raises(ConfigError, match="--repo_id"):
        publish(bundle, repo_id, Release())


def test_the_missing_extra_is_named(bundle: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"medmamba_monai\[hub\]"):
        publish(bundle, "org/name", Release(weights=weights))


@pytest.mark.parametrize("how", ["option", "environment"])
def test_no_token_is_ever_printed(
    how: str,
    bundle: Path,
    weights: Path,
    hub: type[Recorder],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    given = ["bundle", "publish", str(bundle), "--repo_id", "org/name", "--weights", str(weights)]
    if how == "option":
        given += ["--token", SECRET]
    else:
        monkeypatch.setitem(os.environ, "HF_TOKEN", SECRET)
    assert cli.main(given) == 0
    assert dict(hub.calls)["login"]["token"] == SECRET
    hub.fail = OSError(f"401 for the token {SECRET}")
    assert cli.main(given) == 2
    told = capfd.readouterr()
    assert "401" in told.err
    assert "org/name, version 0.1.0" in told.out
    assert SECRET not in told.out + told.err
