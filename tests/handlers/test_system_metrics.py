"""The load of the machine: measured beside the run, sent with everything else, never its end."""

from __future__ import annotations

import importlib.util
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers.system_metrics import SystemSampler, require_psutil


class Counting:
    """Measures 1, 2, 3 …; tells when it has been asked ``enough`` times."""

    def __init__(self, enough: int = 3, fail: bool = False) -> None:
        self.values: list[float] = []
        self.asked = 0
        self.enough = enough
        self.fail = fail
        self.ready = threading.Event()

    def collect_metrics(self) -> None:
        self.asked += 1
        if self.fail:
            raise OSError("planted")
        self.values.append(float(self.asked))
        if self.asked >= self.enough:
            self.ready.set()

    def aggregate_metrics(self) -> dict[str, float]:
        return {"load": sum(self.values) / len(self.values)}

    def clear_metrics(self) -> None:
        self.values.clear()


def test_measures_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "2")
    monitor = Counting(enough=5)
    sampler = SystemSampler(begun=0.0, monitors=[monitor])
    sampler.start()
    assert monitor.ready.wait(30)
    sampler.stop()
    samples = sampler.drain()
    assert {name for name, *_ in samples} == {"system/load"}
    assert [value for _, value, *_ in samples[:2]] == [2.5, 4.5]  # the first measurement has no meaning
    assert all(step == when // 1000 for _, _, when, step in samples)
    assert sampler.drain() == []


def test_a_short_run_has_a_measurement_and_the_node_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_NODE_ID", "node7")
    monitor = Counting(enough=1)
    sampler = SystemSampler(monitors=[monitor])
    sampler.start()
    assert monitor.ready.wait(30)
    sampler.stop()
    assert [name for name, *_ in sampler.drain()] == ["system/node7/load"]


def test_a_driver_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    sampler = SystemSampler(monitors=[Counting(fail=True)])
    sampler.start()
    sampler.stop()
    assert sampler.drain() == []
    assert "no longer measured" in caplog.text


def test_without_psutil_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="psutil.*pip install 'medmamba_monai"):
        require_psutil()


@pytest.fixture(params=["stand-in", "psutil"])
def psutil(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package itself where it is installed, and the few functions of it that MLflow's monitors call."""
    if request.param == "psutil":
        pytest.importorskip("psutil")
        return
    answers: dict[str, Callable[..., Any]] = {
        "cpu_percent": lambda: 50.0,
        "virtual_memory": lambda: types.SimpleNamespace(used=1e9, total=4e9),
        "disk_usage": lambda path: types.SimpleNamespace(percent=10.0, used=1e9, free=9e9),
        "net_io_counters": lambda: types.SimpleNamespace(bytes_recv=1e6, bytes_sent=2e6),
    }
    module = types.ModuleType("psutil")
    module.__spec__ = importlib.util.spec_from_loader("psutil", loader=None)
    module.__dict__.update(answers)
    for name in [name for name in sys.modules if name.startswith("mlflow.system_metrics")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psutil", module)


def test_what_mlflow_measures(psutil: None) -> None:
    sampler = SystemSampler()
    sampler.start()
    sampler.stop()
    names = {name for name, *_ in sampler.drain()}
    assert {
        "system/cpu_utilization_percentage", "system/system_memory_usage_megabytes",
        "system/disk_usage_percentage", "system/network_receive_megabytes",
    } <= names  # fmt: skip
