"""Keeps features and logits of the images that an evaluator sees, of all processes. Used by configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from ignite.engine import Engine, Events

from medmamba_monai.errors import DataError
from medmamba_monai.handlers.hooks import process_count, unwrapped
from medmamba_monai.networks.features import FeatureTap

__all__ = ["FeatureRecorder"]

Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]


class FeatureRecorder:
    """Evaluator handler: logits and, where the network has them, pooled features by file name.

    Args:
        enabled: False makes it do nothing.
        file_key: key of the file names in the batch.
        last_pass: of a batch that passes the network several times the last pass counts, not the mean.
    """

    def __init__(self, enabled: bool = True, file_key: str = "file", last_pass: bool = False) -> None:
        self.enabled, self.file_key, self.last_pass = enabled, file_key, last_pass
        self._tap: FeatureTap | None = None
        self._seen: dict[str, Arrays] = {}

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator, ahead of the handlers that use what is kept."""
        if self.enabled:
            engine.add_event_handler(Events.STARTED, self._started)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
            engine.add_event_handler(Events.COMPLETED, self._completed)

    def of(self, files: list[str]) -> Arrays:
        """Logits (N, C) and features (N, D), or None in their place, in the order of the files.

        Raises:
            DataError: a file was not seen.
        """
        missing = next((file for file in files if file not in self._seen), None)
        if missing is not None:
            raise DataError("the network has not seen this image", where=missing)
        logits, features = zip(*(self._seen[file] for file in files), strict=True)
        known = [values for values in features if values is not None]
        return np.stack(logits), np.stack(known) if len(known) == len(files) else None

    def _started(self, engine: Engine) -> None:
        if self._tap is not None:  # a run that was broken off
            self._tap.close()
        self._seen = {}
        self._tap = FeatureTap(unwrapped(engine.network))

    def _iteration_completed(self, engine: Engine) -> None:
        logits, features = self._tap.take(self.last_pass) if self._tap is not None else (None, None)
        if logits is None:
            raise DataError("the network was not asked", remedy="leave ood_score out with this inferer")
        for index, file in enumerate(_files(engine.state.batch, self.file_key)):
            own = None if features is None else features[index].cpu().numpy()
            self._seen[file] = (logits[index].cpu().numpy(), own)

    def _completed(self, engine: Engine) -> None:
        if self._tap is not None:
            self._tap.close()
            self._tap = None
        if process_count() > 1:
            everyone: list[dict[str, Arrays]] = [{} for _ in range(process_count())]
            dist.all_gather_object(everyone, self._seen)
            self._seen = {file: arrays for part in everyone for file, arrays in part.items()}


def _files(batch: Any, key: str) -> list[str]:
    if isinstance(batch, Mapping):
        names = batch.get(key)
        if names is None:
            names = getattr(batch.get("image"), "meta", {}).get("filename_or_obj")
        return [names] if isinstance(names, str) else [str(name) for name in names or []]
    return [name for item in batch for name in _files(item, key)]
