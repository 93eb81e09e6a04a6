"""The MLflow run that others are shown under: folds, seeds, trials. Imports handlers and errors.

Tracking never ends the work: a store that does not answer gives one warning, and runs without a parent.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.utils import path_to_uri

from medmamba_monai.handlers.files import write_json
from medmamba_monai.handlers.mlflow_client import QuietClient, local_database, usable_tracking_uri
from medmamba_monai.handlers.mlflow_records import allowed_name, flat_params

__all__ = ["ParentRun"]

FILE_NAME = "parent_run.json"


class ParentRun:
    """One run that goes on when its command is repeated.

    Args:
        folder: where its id is kept between commands.
        tracking_uri: the store; the environment variable MLFLOW_TRACKING_URI goes before it. None: nothing is recorded.
        experiment_name: created where it does not exist.
        name: of a new run.
        params: recorded with a new run.

    Raises:
        ConfigError: a store that MLflow cannot use.
    """

    def __init__(
        self,
        folder: Path,
        tracking_uri: str | None,
        experiment_name: str,
        name: str,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.experiment_name, self.name = folder, experiment_name, name
        self.params = dict(params or {})
        self.run_id: str | None = None
        self._client: QuietClient | None = None
        if tracking_uri is not None:
            self._client = QuietClient(usable_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri))

    def begin(self) -> None:
        """Go on with the run of an earlier command in this folder, or create one."""
        if self._client is None:
            return
        self.run_id = self._earlier()
        if self.run_id is None:
            self._create()
        else:
            self._client.call("update_run", self.run_id, status="RUNNING")
        self._client.close()

    def child_options(self, name: str) -> dict[str, Any]:
        """Keys of a bundle that have its run recorded under this one.

        The store's address is not among them: a command line is for all to see (`Experiment.environment`).

        Args:
            name: of that run.
        """
        if self._client is None:
            return {"mlflow": False}
        return {
            "mlflow": True,
            "experiment_name": self.experiment_name,
            "run_name": name,
            "parent_run_id": self.run_id,
        }

    def log(
        self,
        metrics: Mapping[str, float | None] | None = None,
        tags: Mapping[str, Any] | None = None,
        step: int = 0,
    ) -> None:
        """Record numbers and texts; a number that is None is left out."""
        if self._client is None or self.run_id is None:
            return
        for name, value in (metrics or {}).items():
            if value is not None:
                self._client.call("log_metric", self.run_id, allowed_name(name), float(value), step=step)
        for name, text in (tags or {}).items():
            self._client.call("set_tag", self.run_id, allowed_name(name), str(text))
        self._client.close()

    def finish(self, status: str, artifacts: Sequence[Path] = ()) -> None:
        """Record files and how the work ended.

        Args:
            status: "FINISHED", "FAILED" or "KILLED".
            artifacts: files, those that exist.
        """
        if self._client is None or self.run_id is None:
            return
        self._client.try_again()
        for path in artifacts:
            if path.is_file():
                self._client.call("log_artifact", self.run_id, str(path))
        self._client.call("set_terminated", self.run_id, status)
        self._client.close()

    def _earlier(self) -> str | None:
        if self._client is None:
            return None
        try:
            kept = json.loads((self.folder / FILE_NAME).read_text(encoding="utf-8"))
            same_store, run_id = kept["store"] == _digest(self._client.uri), str(kept["run_id"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        run = self._client.find("get_run", run_id) if same_store else None
        return run_id if run is not None and run.info.lifecycle_stage == "active" else None  # "deleted": by a user

    def _create(self) -> None:
        from mlflow.entities import Param

        if (client := self._client) is None:
            return
        experiment = client.call("get_experiment_by_name", self.experiment_name)
        if experiment is None or experiment is True:  # True: there is none of that name
            database = local_database(client.uri)
            location = None if database is None else str(path_to_uri(database.parent / "mlruns"))
            experiment_id = client.call("create_experiment", self.experiment_name, artifact_location=location)
        else:
            experiment_id = experiment.experiment_id
        run = None if experiment_id is None else client.call("create_run", experiment_id, run_name=self.name)
        if run is None:
            return
        self.run_id = str(run.info.run_id)
        write_json(self.folder / FILE_NAME, {"store": _digest(client.uri), "run_id": self.run_id})
        params = [Param(name, value) for name, value in flat_params(self.params).items()]
        client.call("log_batch", self.run_id, params=params[:100])


def _digest(uri: str) -> str:
    """What tells stores apart; an address may hold a password, which is not for a file."""
    return hashlib.sha256(uri.encode()).hexdigest()
