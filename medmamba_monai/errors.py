"""The errors users meet: each message says what was wrong, where, and what to do. Imports nothing."""

from __future__ import annotations

__all__ = ["BackendError", "CheckpointError", "ConfigError", "DataError", "MedMambaError"]


class MedMambaError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: what was wrong, with the offending value.
        where: the file, row, key or argument it was found in; None where ``what`` names it already.
        remedy: what the user can do about it.

    Example:
        >>> print(DataError("label 'benig' is unknown", where="labels.csv, row 7", remedy="did you mean 'benign'?"))
        labels.csv, row 7: label 'benig' is unknown. Remedy: did you mean 'benign'?
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        text = what if where is None else f"{where}: {what}"
        if remedy is not None:
            text = f"{text.rstrip('.')}. Remedy: {remedy}"
        super().__init__(text)


class DataError(MedMambaError):
    """An image, a label table or a datalist cannot be used as it is."""


class ConfigError(MedMambaError, ValueError):
    """An argument, a configuration key or a combination of them makes no sense."""


class CheckpointError(MedMambaError):
    """Weights or a training state are missing, damaged or belong to another network."""


class BackendError(MedMambaError, RuntimeError):
    """A scan backend was asked for by name and cannot run here."""
