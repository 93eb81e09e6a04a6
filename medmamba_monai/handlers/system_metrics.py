"""Load of the processor, memory, disk, network and GPU while a run lasts, sampled by MLflow's own monitors.

MLflow's ``SystemMetricsMonitor`` sends by itself: it ends for ever when the store fails once, and a store that hangs
holds up the end of the run. Here its monitors only measure; the tracker sends what they found with everything else.
"""

from __future__ import annotations

import importlib.util
import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from medmamba_monai.errors import ConfigError

__all__ = ["SystemSampler", "require_psutil"]

PREFIX = "system/"  # MLflow's pages show these metrics apart
INTERVAL = 10.0  # seconds, as MLflow's
LONGEST_STOP = 5.0

Sample = tuple[str, float, int, int]

logger = logging.getLogger(__name__)


class Monitor(Protocol):
    """What MLflow's monitors have in common."""

    def collect_metrics(self) -> Any:
        """Measure once."""

    def aggregate_metrics(self) -> dict[str, float]:
        """The mean of what was measured, by name."""
        ...

    def clear_metrics(self) -> None:
        """Forget what was measured."""


def require_psutil() -> None:
    """Prove that the load can be measured, before a training that shall record it starts.

    Raises:
        ConfigError: psutil is not installed.
    """
    if importlib.util.find_spec("psutil") is None:
        raise ConfigError(
            "the load of the machine is measured by psutil, which is not installed",
            where="system_metrics",
            remedy="pip install 'medmamba_monai[system_metrics]' (and nvidia-ml-py for NVIDIA GPUs), or leave it out",
        )


class SystemSampler:
    """Measures in a thread of its own until it is stopped.

    MLflow's variables MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL (seconds), MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING
    and MLFLOW_SYSTEM_METRICS_NODE_ID apply.

    Args:
        begun: Unix time in seconds that steps are counted from, the start of the run: a resumed run goes on.
        monitors: what to measure with; None takes MLflow's for processor, memory, disk, network and GPU.
        interval: seconds between measurements where the variable says nothing.

    Raises:
        ConfigError: psutil is not installed.
    """

    def __init__(
        self, begun: float | None = None, monitors: Sequence[Monitor] | None = None, interval: float = INTERVAL
    ) -> None:
        from mlflow import environment_variables as variables

        self.begun = time.time() if begun is None else begun
        self.monitors = _mlflow_monitors() if monitors is None else list(monitors)
        self.interval = float(variables.MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or interval)
        self.together = int(variables.MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING.get() or 1)
        node = variables.MLFLOW_SYSTEM_METRICS_NODE_ID.get()
        self.prefix = f"{PREFIX}{node}/" if node else PREFIX
        self._found: queue.SimpleQueue[Sample] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="SystemSampler", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self) -> None:
        """End, with a last measurement: a run shorter than the interval has one, too."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(LONGEST_STOP)

    def drain(self) -> list[Sample]:
        """What was measured since the last call: name, value, Unix time in ms, seconds since the start."""
        samples = []
        while not self._found.empty():
            samples.append(self._found.get())
        return samples

    def _measure(self) -> None:
        try:
            self._collect()  # the first load of a processor is meaningless: it is that since the last question
            for monitor in self.monitors:
                monitor.clear_metrics()
            while not self._ended.is_set():
                for _ in range(self.together):
                    self._ended.wait(self.interval)
                    self._collect()
                    if self._ended.is_set():
                        break
                self._publish()
        except Exception:  # drivers raise what they like; measuring the load must not end a training
            logger.warning("the load of the machine is no longer measured", exc_info=True)

    def _collect(self) -> None:
        for monitor in self.monitors:
            monitor.collect_metrics()

    def _publish(self) -> None:
        now = time.time()
        for monitor in self.monitors:
            for name, value in monitor.aggregate_metrics().items():
                self._found.put((self.prefix + name, float(value), int(1000 * now), int(now - self.begun)))
            monitor.clear_metrics()


def _mlflow_monitors() -> list[Monitor]:
    require_psutil()
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Monitor] = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        try:
            monitors.append(kind())
        except Exception as error:  # noqa: BLE001 (no driver, no library or no device: each raises something else)
            logger.info("%s measures nothing here (%s)", kind.__name__, error)
    return monitors
