"""What weights need beside them to be used rightly: ``model.json`` next to ``model.pt``. Imports errors only."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

__all__ = ["FILE_NAME", "ModelInfo"]

FILE_NAME = "model.json"


@dataclasses.dataclass
class ModelInfo:
    """Class names, channels, sizes and preprocessing that a set of weights was trained with.

    Attributes:
        class_names: names in the order of the head's outputs.
        channels: channels of the image.
        spatial_dims: 2 or 3.
        image_size: sides of the image the network was trained on.
        network: arguments of :class:`~medmamba_monai.networks.MedMamba` (its ``config``), or {} for another network.
        preprocessing_digest: sha256 of the preprocessing's configuration.
        extra: anything else worth keeping (versions, metric, data digest); strings and numbers.
        task: "multiclass" (classes exclude one another) or "multilabel" (an image may have several).
    """

    class_names: list[str]
    channels: int
    spatial_dims: int
    image_size: list[int]
    network: dict[str, Any]
    preprocessing_digest: str
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    task: str = "multiclass"

    def save(self, ckpt_dir: str | os.PathLike[str]) -> Path:
        """Write ``<ckpt_dir>/model.json``, replacing an older one at once."""
        folder = Path(ckpt_dir)
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{FILE_NAME}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        return Path(temporary).replace(folder / FILE_NAME)

    @classmethod
    def load(cls, ckpt_dir: str | os.PathLike[str]) -> ModelInfo:
        """Read ``<ckpt_dir>/model.json``.

        Raises:
            CheckpointError: when it is missing, unreadable or lacks an entry.
        """
        path = Path(ckpt_dir) / FILE_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CheckpointError(
                "there is no description of a trained model",
                where=str(path),
                remedy="train first, or give the folder of trained weights with --ckpt_dir",
            ) from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot be read ({error})", where=str(path)) from error
        fields = {field.name for field in dataclasses.fields(cls)}
        needed = fields - {"extra", "task"}  # files of version 0.1 have no task
        if not isinstance(values, dict) or not needed <= set(values):
            missing = sorted(needed - set(values)) if isinstance(values, dict) else sorted(needed)
            raise CheckpointError(f"entries are missing: {', '.join(missing)}", where=str(path))
        return cls(**{name: value for name, value in values.items() if name in fields})

    def check(
        self,
        class_names: Sequence[str] | None = None,
        channels: int | None = None,
        preprocessing_digest: str | None = None,
        task: str | None = None,
    ) -> None:
        """Compare with what is about to be used; None is not compared.

        Raises:
            CheckpointError: naming the first difference.
        """
        wanted = {
            "class names": (self.class_names, None if class_names is None else list(class_names)),
            "task": (self.task, task),
            "image channels": (self.channels, channels),
            "preprocessing digest": (self.preprocessing_digest, preprocessing_digest),
        }
        for name, (trained, now) in wanted.items():
            if now is not None and trained != now:
                raise CheckpointError(
                    f"the weights were trained with {name} {trained}, now {now} is asked for",
                    where=FILE_NAME,
                    remedy="use the data and the configuration the weights were trained with, or train anew",
                )
