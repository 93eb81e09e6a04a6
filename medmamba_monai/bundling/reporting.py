"""Ends a failed run of a bundle with the one message that matters. Imports errors only."""

from __future__ import annotations

import os
import sys
from types import TracebackType

from medmamba_monai.errors import MedMambaError

__all__ = ["TRACEBACK_VARIABLE", "explain_failures", "root_cause"]

TRACEBACK_VARIABLE = "MEDMAMBA_TRACEBACK"


def root_cause(error: BaseException | None) -> MedMambaError | None:
    """Return the deepest error of this package among the causes of ``error``, or None.

    MONAI wraps what goes wrong inside a config in errors of its own, so that the last line a user sees
    names a component and not the reason.
    """
    found, seen = None, set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MedMambaError):
            found = error
        error = error.__cause__ or error.__context__
    return found


def explain_failures() -> None:
    """When an error of this package ends the process, print its message alone; safe to call again.

    MONAI's trace of its config resolver is shown with ``MEDMAMBA_TRACEBACK=1``, and for every other error.
    """
    previous = sys.excepthook
    if getattr(previous, "explains", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        reason = root_cause(error)
        if reason is None or os.environ.get(TRACEBACK_VARIABLE):
            previous(kind, error, trace)
        if reason is not None:
            sys.stderr.write(f"\n{type(reason).__name__}: {reason}\n")

    hook.explains = True  # type: ignore[attr-defined]
    sys.excepthook = hook
