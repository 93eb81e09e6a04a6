"""A polite end when the machine is taken away: finish the iteration and save. Used by configs."""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from ignite.engine import Engine, Events

from medmamba_monai.errors import ConfigError
from medmamba_monai.handlers.hooks import any_rank, process_count, run_last

__all__ = ["PREEMPTED_EXIT_CODE", "Preempted", "TerminateOnSignal"]

PREEMPTED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later
ORDER_AMONG_LAST = 5  # before the training state is written

logger = logging.getLogger(__name__)


class Preempted(SystemExit):
    """Training was stopped by a signal and can be resumed; the process exits with code 75.

    Args:
        name: the signal's name.

    Example:
        >>> Preempted("SIGTERM").code
        75
    """

    def __init__(self, name: str) -> None:
        super().__init__(PREEMPTED_EXIT_CODE)
        self.name = name


class TerminateOnSignal:
    """On SIGTERM or SIGINT, ends the run after the present iteration, with all states saved.

    ``CheckpointHandler`` then writes the training state, ``MLflowTracker`` marks its run as killed, and
    ``trainer.run()`` raises ``Preempted``, which ends the process with code 75. A second signal acts at once.
    During validation a single process stops validating, and the resumed run validates first; several
    processes finish it, because they must stop together. Attached to the trainer.

    Args:
        evaluator: the validation engine.
        signals: names of the signals.

    Raises:
        ConfigError: an unknown signal name.

    Example:
        >>> TerminateOnSignal(signals=["SIGTREM"])
        Traceback (most recent call last):
            ...
        medmamba_monai.errors.ConfigError: TerminateOnSignal.signals: 'SIGTREM' is no signal of this system
    """

    def __init__(self, evaluator: Engine | None = None, signals: Sequence[str] = ("SIGTERM", "SIGINT")) -> None:
        for name in signals:
            if name not in signal.Signals.__members__:
                raise ConfigError(f"'{name}' is no signal of this system", where="TerminateOnSignal.signals")
        self.evaluator = evaluator
        self.signals = [signal.Signals[name] for name in signals]
        self.received: str | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._process = -1

    def attach(self, engine: Engine) -> None:
        """Register with the trainer and the evaluator."""
        engine.run = self._guarded(engine, engine.run)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        run_last(engine, Events.EPOCH_COMPLETED, self._epoch_completed, ORDER_AMONG_LAST)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(
                Events.ITERATION_COMPLETED, lambda evaluator: self._leave_validation(engine, evaluator)
            )

    def _guarded(self, engine: Engine, run: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(run)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.received, engine.state.stopped_by_signal = None, None
            self._install()
            try:
                result = run(*args, **kwargs)
            finally:
                self._restore()
            if engine.state.stopped_by_signal is not None:
                logger.warning("stopped by %s; resume to go on", engine.state.stopped_by_signal)
                raise Preempted(engine.state.stopped_by_signal)
            return result

        return guarded

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            logger.warning("not in the main thread: signals will end this run without saving")
            return
        self._process = os.getpid()
        for number in self.signals:
            if signal.getsignal(number) != signal.SIG_IGN:  # a shell's background job: Ctrl-C is not meant for it
                self._previous[number] = signal.signal(number, self._received)

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def _received(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader's worker, which inherited this handler
            if number != signal.SIGINT:  # Ctrl-C reaches workers too, but the last batch is still wanted
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number).name
        self._restore()  # the second one acts at once
        os.write(2, f"\n{self.received}: finishing the iteration and saving\n".encode())

    def _iteration_completed(self, engine: Engine) -> None:
        # The last iteration leaves it to the end of the epoch, lest the epoch's validation be forgotten.
        if engine.state.epoch_length is None or engine.state.iteration % engine.state.epoch_length:
            self._stop_if_asked(engine)

    def _epoch_completed(self, engine: Engine) -> None:
        if engine.state.epoch != engine.state.max_epochs:  # else the training is done: there is nothing to resume
            self._stop_if_asked(engine)

    def _stop_if_asked(self, engine: Engine) -> None:
        if any_rank(self.received is not None, engine.state.device):
            engine.state.stopped_by_signal = self.received or "a signal to another process"
            engine.terminate()

    def _leave_validation(self, engine: Engine, evaluator: Engine) -> None:
        if self.received is not None and process_count() == 1 and engine.state.epoch != engine.state.max_epochs:
            evaluator.terminate(skip_completed=True)
