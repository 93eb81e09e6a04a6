"""An MLflow client that cannot hurt a training: short waits, one warning, and a pause after failures."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from medmamba_monai.errors import ConfigError

__all__ = ["QuietClient", "default_tracking_uri", "local_database", "shown_uri", "sqlite_uri", "usable_tracking_uri"]

SQLITE = "sqlite:///"
DATABASE_NAME = "mlruns.db"
FIRST_PAUSE = 60.0  # seconds without an attempt after a failure; doubled up to the longest
LONGEST_PAUSE = 600.0
UPLOAD_TIMEOUT = 120.0  # a server answers an upload when the whole file is in its store

logger = logging.getLogger(__name__)


def default_tracking_uri(output_dir: str | Path) -> str:
    """Address of the local database of a run: ``<output_dir>/mlruns.db``.

    The path stands there as it is. SQLAlchemy decodes addresses since 2.1 and did not before, and MLflow makes the
    database's folder under the name as it is written: ``monai.utils.path_to_sqlite_uri``, which encodes everything,
    leaves a stray folder, or fails, where the path has a space or an accent.

    Example:
        >>> default_tracking_uri("/data/my runs")
        'sqlite:////data/my runs/mlruns.db'
    """
    return sqlite_uri(Path(output_dir).absolute() / DATABASE_NAME)


def local_database(uri: str) -> Path | None:
    """The file of a local database, or None for another store.

    Example:
        >>> str(local_database("sqlite:////tmp/my%20runs/mlruns.db")), local_database("http://host")
        ('/tmp/my runs/mlruns.db', None)
    """
    return Path(unquote(uri.removeprefix(SQLITE))) if uri.startswith(SQLITE) else None


def usable_tracking_uri(uri: str) -> str:
    """Refuse addresses that MLflow cannot use, with the form it can; write a local path plainly.

    Returns:
        The address.

    Raises:
        ConfigError: a folder, a ``file:`` address, or no address at all.

    Example:
        >>> usable_tracking_uri("sqlite:////tmp/my%20runs/mlruns.db")
        'sqlite:////tmp/my runs/mlruns.db'
        >>> usable_tracking_uri("/tmp/mlruns")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        medmamba_monai.errors.ConfigError: tracking_uri: '/tmp/mlruns' is a folder ...
    """
    if uri.startswith("databricks"):
        return uri
    if uri.startswith("file:") or "://" not in uri:
        raise ConfigError(
            f"'{uri}' is a folder or file address, which MLflow no longer writes to",
            where="tracking_uri",
            remedy="give sqlite:///<folder>/mlruns.db or the http(s) address of a server",
        )
    database = local_database(uri)
    return uri if database is None else sqlite_uri(database)


class QuietClient:
    """Calls methods of ``mlflow.MlflowClient``; a failure gives None, one warning, and a pause.

    Args:
        uri: address of the tracking store.
        timeout: seconds an answer of a server may take.

    Raises:
        ConfigError: see ``usable_tracking_uri``.
    """

    def __init__(self, uri: str, timeout: float = 5.0) -> None:
        self.uri = usable_tracking_uri(uri)
        self.timeout = max(1, round(timeout))
        self.warned = False
        self._client: Any = None
        self._pause = FIRST_PAUSE
        self._paused_until = 0.0

    @property
    def paused(self) -> bool:
        """Whether calls are refused at once because the store failed a short while ago."""
        return time.monotonic() < self._paused_until

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client.

        Returns:
            Its result (True where that is None), or None after a failure or during a pause.
        """
        uploads = "artifact" in method
        return self.attempt(lambda: getattr(self._connected(), method)(*args, **kwargs), uploads)

    def find(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method that asks for something which need not be there.

        Returns:
            Its result, or None; that the store has no such thing is no failure.
        """

        def ask() -> Any:
            from mlflow.exceptions import MlflowException

            try:
                return getattr(self._connected(), method)(*args, **kwargs)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return False

        return self.attempt(ask) or None

    def attempt(self, action: Callable[[], Any], uploads: bool = False) -> Any:
        """Do something that uses MLflow.

        Args:
            action: what to do.
            uploads: an answer may take as long as an upload.

        Returns:
            Its result (True where that is None), or None after a failure or during a pause.
        """
        if self.paused:
            return None
        try:
            with self._short_waits(max(self.timeout, UPLOAD_TIMEOUT) if uploads else self.timeout):
                result = action()
        except Exception as error:  # noqa: BLE001 (stores raise what their back ends do; none may end a run)
            self._failed(error)
            return None
        if self.warned:
            logger.warning("the MLflow store %s answers again", shown_uri(self.uri))
        self.warned, self._pause = False, FIRST_PAUSE
        return True if result is None else result

    def try_again(self) -> None:
        """End a pause, for one last attempt."""
        self._paused_until = 0.0

    def close(self) -> None:
        """Release the database of a local store."""
        store = getattr(getattr(self._client, "_tracking_client", None), "store", None)
        for name in ("engine", "read_engine"):
            engine = getattr(store, name, None)
            if engine is not None:
                engine.dispose()
        self._client = None

    def _connected(self) -> Any:
        if self._client is None:
            self._client = _connect(self.uri)
        return self._client

    def _failed(self, error: Exception) -> None:
        self._paused_until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if not self.warned:
            self.warned = True
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            reason = reason.replace(self.uri, shown_uri(self.uri))
            logger.warning(
                "the MLflow store %s failed (%s). The run goes on; metrics are sent when it answers again",
                shown_uri(self.uri), reason,
            )  # fmt: skip

    @contextmanager
    def _short_waits(self, timeout: float) -> Iterator[None]:
        """MLflow's own 120 s and seven retries would halt training for minutes; the user's settings win."""
        settings = {
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(round(timeout)),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        }
        added = {name: value for name, value in settings.items() if name not in os.environ}
        os.environ.update(added)
        try:
            yield
        finally:
            for name in added:
                os.environ.pop(name, None)


def shown_uri(uri: str) -> str:
    """The address without user and password; cut at the last "@", since some stores take a "/" or "@" in a password.

    Example:
        >>> shown_uri("https://ann:p@ss@host:5000"), shown_uri("sqlite:////home/a@b/mlruns.db")
        ('https://host:5000', 'sqlite:////home/a@b/mlruns.db')
    """
    scheme, separator, rest = uri.partition("://")
    return uri if local_database(uri) is not None else f"{scheme}{separator}{rest.rpartition('@')[2]}"


def sqlite_uri(database: Path) -> str:
    """Address of a SQLite file; only what would be taken for an encoded letter is encoded.

    Example:
        >>> sqlite_uri(Path("/data/100%/c%41d.db"))
        'sqlite:////data/100%/c%2541d.db'
    """
    return SQLITE + re.sub("%(?=[0-9A-Fa-f]{2})", "%25", database.as_posix())


def _connect(uri: str) -> Any:
    database = local_database(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        sqlite3.connect(database).close()  # fails at once, where MLflow would try for 100 seconds
        for name in ("alembic", "mlflow.store.db.utils"):  # dozens of lines about creating tables
            logging.getLogger(name).setLevel(logging.WARNING)
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri)
