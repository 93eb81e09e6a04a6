"""A trained bundle as MLflow serves it: image files in, class probabilities out.

MLflow imports this module when it loads a model that `logged_model` wrote. Nothing is unpickled: the model is a
bundle's inference config with its weights, opened as a run of the bundle would open it.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medmamba_monai.bundling.opened import TrainedBundle, open_trained
from medmamba_monai.engines.precision import autocast
from medmamba_monai.errors import DataError, MedMambaError
from medmamba_monai.handlers.predictions import NO_FINDING, SEPARATOR

if TYPE_CHECKING:
    import pandas

__all__ = ["COLUMN", "PREDICTION", "ServedModel", "image_file"]

COLUMN = "image"
PREDICTION = "prediction"
BATCH_SIZE = 8
THRESHOLD = 0.5  # as predictions.csv has it, where an image may have several classes
_GZIP = b"\x1f\x8b"


def _load_pyfunc(data_path: str) -> ServedModel:
    """Open the bundle that lies in an MLflow model; MLflow calls this by its name."""
    return ServedModel(open_trained(Path(data_path)))


class ServedModel:
    """What ``mlflow.pyfunc.load_model`` wraps.

    Args:
        trained: the opened bundle.
    """

    def __init__(self, trained: TrainedBundle) -> None:
        self.trained = trained
        self.several = trained.info.task == "multilabel"

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pandas.DataFrame:
        """Predict images as the bundle's inference does.

        Args:
            model_input: a data frame, list of dictionaries or dictionary of lists with the column ``image``, or a list
                of its values: paths of files, or the base64 code of files' bytes.
            params: none are known.

        Returns:
            One row an image, in the order and with the index given: ``prediction`` (class name; several classes joined
            by "|", or "No Finding", where an image may have several) and the probability of each class by its name.

        Raises:
            MlflowException: an image that cannot be used, by its number and with the reason; a server answers 400.
        """
        import pandas

        frame = _frame(model_input)
        values, parts = list(frame[COLUMN]), []
        for start in range(0, len(values), BATCH_SIZE):
            images = [
                self._read(value, start + place) for place, value in enumerate(values[start : start + BATCH_SIZE])
            ]
            parts.append(self._probabilities(images))
        classes = self.trained.class_names
        table = torch.cat(parts).tolist() if parts else []
        found = pandas.DataFrame(table, columns=classes, index=frame.index, dtype="float64")
        found.insert(0, PREDICTION, [self._text(row) for row in table])
        return found

    def _read(self, value: Any, number: int) -> Tensor:
        try:
            with image_file(value) as (path, name):
                try:
                    return self.trained.read(str(path)).tensor
                except MedMambaError as error:
                    raise DataError(str(error).replace(str(path), name)) from error
        except MedMambaError as error:
            raise _refusal(f"image {number}: {error}") from error

    def _probabilities(self, images: Sequence[Tensor]) -> Tensor:
        device = self.trained.device
        with torch.inference_mode(), autocast(device, self.trained.amp):  # as the bundle's inference does
            logits = self.trained.network(torch.stack(list(images)).to(device)).double().cpu()
        return logits.sigmoid() if self.several else logits.softmax(1)

    def _text(self, row: Sequence[float]) -> str:
        names = self.trained.class_names
        if not self.several:
            return names[max(range(len(row)), key=row.__getitem__)]
        found = SEPARATOR.join(n for n, value in zip(names, row, strict=True) if value >= THRESHOLD)
        return found or ("" if NO_FINDING in names else NO_FINDING)


@contextmanager
def image_file(value: Any) -> Iterator[tuple[Path, str]]:
    """The file that a value of the column ``image`` means, and what to call it in a message.

    Args:
        value: a path, or base64 code (also as a ``data:`` address), whose bytes lie in a temporary file meanwhile.

    Raises:
        DataError: neither.
    """
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{value!r} is neither a path nor base64 code", remedy="give a text in the column image")
    if _is_path(value):
        yield Path(value), value
        return
    content = _decoded(value)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"image{_suffix(content)}")
        path.write_bytes(content)
        yield path, "the file given as base64 code"


def _is_path(value: str) -> bool:
    try:
        return Path(value.split("#")[0]).exists()  # "a.npz#train/0" is a picture in an archive
    except (OSError, ValueError):  # too long for a name, or a character that none may have
        return False


def _decoded(value: str) -> bytes:
    code = value.partition(",")[2] if value.startswith("data:") else value
    try:
        content = base64.b64decode("".join(code.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _neither(value) from error
    if len(content) < 32:  # no picture is that small, but many a mistyped name is valid base64
        raise _neither(value)
    return content


def _neither(value: str) -> DataError:
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    return DataError(
        f"'{shown}' is neither an existing file nor the base64 code of one",
        remedy="give a path that this process can read, or base64.b64encode(file's bytes).decode()",
    )


def _suffix(content: bytes) -> str:
    """Volumes are told from other archives by their names; everything else by its content."""
    if content.startswith(_GZIP):
        return ".nii.gz"
    return ".nii" if content[344:348] == b"n+1\0" or content[4:8] == b"n+2\0" else ""


def _frame(model_input: Any) -> pandas.DataFrame:
    import pandas

    if isinstance(model_input, str):
        model_input = [model_input]
    if not isinstance(model_input, (pandas.DataFrame, dict)):
        model_input = list(model_input)
        if not all(isinstance(row, dict) for row in model_input):
            model_input = {COLUMN: model_input}
    frame = pandas.DataFrame(model_input)
    if COLUMN not in frame:
        raise _refusal(f"the input has no column '{COLUMN}' but {list(map(str, frame.columns))}")
    return frame


def _refusal(reason: str) -> Exception:
    """MLflow's server passes on the message of its own kind of error only."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    refusal: Exception = MlflowException(reason, error_code=INVALID_PARAMETER_VALUE)
    return refusal
