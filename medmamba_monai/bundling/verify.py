"""Runs the checks of the zoo on bundles and tells what came of them."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from medmamba_monai.bundling.checks import CHECKS, Check
from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.bundling.trial import Trial, on_trial

__all__ = ["Outcome", "table", "verify"]

LONGEST_REASON = 300


class Outcome(NamedTuple):
    """What came of one check: "ok", "FAILED" or "not run", and what it found or the reason."""

    bundle: str
    check: str
    state: str
    detail: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the check was passed."""
        return self.state == "ok"


def verify(bundle: Path, schemas: Path, checks: Sequence[Check] = CHECKS) -> Iterator[Outcome]:
    """Check one bundle on a temporary copy; the bundle itself is not touched.

    This runs what the bundle's configs and scripts say, as the zoo does: look at a stranger's bundle first.

    Args:
        bundle: its folder, or the zip of a release.
        schemas: folder with the metadata schemas.
        checks: which ones.

    Yields:
        An outcome as soon as it is there.

    Raises:
        ConfigError: a zip that holds no bundle.
    """
    with on_trial(bundle) as trial:
        failed: set[str] = set()
        for check in checks:
            blocked = [name for name in check.needs if name in failed]
            outcome = _blocked(trial, check, blocked) if blocked else _run(trial, check, schemas)
            if not outcome.ok:
                failed.add(check.name)
            yield outcome


def table(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield a line for each outcome, the bundle's name above those that belong to it."""
    current = None
    for outcome in outcomes:
        if outcome.bundle != current:
            current = outcome.bundle
            yield current
        yield f"  {outcome.check:<26}{outcome.state:<8}{outcome.seconds:6.1f} s  {outcome.detail}"


def _blocked(trial: Trial, check: Check, blocked: list[str]) -> Outcome:
    return Outcome(trial.folder.name, check.name, "not run", f"after {', '.join(blocked)} failed", 0.0)


def _run(trial: Trial, check: Check, schemas: Path) -> Outcome:
    start = time.perf_counter()
    state = "ok"
    try:
        with _silence():
            detail = check.run(trial, schemas)
    except Exception as error:  # noqa: BLE001 configs may fail in any way; the reason is told and the exit code is not 0
        state, detail = "FAILED", _reason(error, trial)
    return Outcome(trial.folder.name, check.name, state, detail, time.perf_counter() - start)


def _reason(error: Exception, trial: Trial) -> str:
    """The message that matters, on one line, without the temporary folder's name."""
    cause = root_cause(error)
    deepest: BaseException = error
    while cause is None and deepest.__cause__ is not None:
        deepest = deepest.__cause__
    text = str(cause) if cause is not None else f"{type(deepest).__name__}: {deepest}"
    text = " ".join(text.replace(f"{trial.folder}/", "").split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep MONAI's reports on its own steps out of the table."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
