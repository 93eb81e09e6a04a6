"""The client that cannot hurt: addresses, short waits, one warning, pauses."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow  # noqa: F401 (slow: not to be counted in the times below)
import pytest
from monai.utils import path_to_sqlite_uri

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers.mlflow_client import (
    QuietClient,
    default_tracking_uri,
    local_database,
    shown_uri,
    usable_tracking_uri,
)


@pytest.fixture
def dead_server() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://user:secret@127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def mute_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("uri", ["sqlite:////tmp/a.db", "http://host:5000", "https://host", "databricks"])
def test_usable_addresses(uri: str) -> None:
    assert usable_tracking_uri(uri) == uri


@pytest.mark.parametrize("name", ["plain", "a b", "ünï", "100%", "a%20b"])
def test_paths_survive_both_ways_of_writing_them(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    for uri in (default_tracking_uri(folder), path_to_sqlite_uri(folder / "mlruns.db")):
        assert local_database(usable_tracking_uri(uri)) == folder / "mlruns.db"
        assert usable_tracking_uri(usable_tracking_uri(uri)) == default_tracking_uri(folder)


def test_addresses_are_shown_without_passwords() -> None:
    assert shown_uri("http://ann:p@s/s@host:5000/a") == "http://host:5000/a"
    for uri in ("http://host:5000", "sqlite:////home/a@b/mlruns.db", "databricks"):
        assert shown_uri(uri) == uri


@pytest.mark.parametrize("uri", ["/tmp/mlruns", "mlruns", "file:///tmp/mlruns", "file:mlruns"])
def test_folders_are_refused_with_the_remedy(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking_uri: .*Remedy: give sqlite:///"):
        QuietClient(uri)


def test_database_that_cannot_be_opened_is_given_up_at_once(caplog: pytest.LogCaptureFixture) -> None:
    start = time.monotonic()
    client = QuietClient("sqlite:////proc/nothing/mlruns.db")
    assert client.call("search_experiments") is None
    assert time.monotonic() - start < 5
    assert "/proc/nothing" in caplog.text


def test_dead_server_costs_little_and_is_told_once(dead_server: str, caplog: pytest.LogCaptureFixture) -> None:
    client = QuietClient(dead_server)
    start = time.monotonic()
    for _ in range(20):
        assert client.call("get_experiment_by_name", "name") is None
    assert time.monotonic() - start < 5
    assert client.paused
    client.try_again()
    assert client.call("get_experiment_by_name", "name") is None
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "127.0.0.1" in "".join(warnings)
    told = [message for message in warnings if "The run goes on" in message]
    assert len(told) == 1
    assert "secret" not in "".join(warnings)


def test_mute_server_is_given_up_after_the_timeout(mute_server: str) -> None:
    client = QuietClient(mute_server, timeout=1)
    start = time.monotonic()
    for _ in range(5):
        assert client.call("get_experiment_by_name", "name") is None
    assert 0.9 < time.monotonic() - start < 4


def test_recovery_is_told(store: str, caplog: pytest.LogCaptureFixture) -> None:
    client = QuietClient(store)
    assert client.call("no_such_method") is None
    assert client.call("search_experiments") is None  # paused
    client.try_again()
    assert client.call("search_experiments")
    assert "answers again" in caplog.text
    assert not client.paused
    client.close()


def test_what_a_store_lacks_is_no_failure(store: str, caplog: pytest.LogCaptureFixture) -> None:
    client = QuietClient(store)
    assert client.find("get_run", "0" * 32) is None
    assert not client.paused
    assert client.find("get_experiment", "0").name == "Default"
    assert client.find("no_such_method") is None
    assert client.paused
    client.close()


def test_uploads_may_take_longer(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Recorder:
        def __getattr__(self, name: str) -> object:
            return lambda: seen.append((name, os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]))

    monkeypatch.setattr("medmamba_monai.handlers.mlflow_client._connect", lambda uri: Recorder())
    client = QuietClient(store, timeout=3)
    for method in ("log_batch", "log_artifact", "log_model_artifacts"):
        client.call(method)
    assert seen == [("log_batch", "3"), ("log_artifact", "120"), ("log_model_artifacts", "120")]


def test_settings_of_the_user_win_and_ours_are_taken_back(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = QuietClient(store, timeout=3)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    with client._short_waits(3):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
