"""The data of a bundle run, prepared when first asked for: a network can be built where there is none."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from medmamba_monai.bundling.processes import on_first_process
from medmamba_monai.data import Datalist, DataSource, Leakage, fetch_medmnist, find_leakage, prepare_datalist
from medmamba_monai.data.layout import parse_layout
from medmamba_monai.data.medmnist_fetch import size_for
from medmamba_monai.errors import CheckpointError, ConfigError, DataError
from medmamba_monai.networks.model_info import ModelInfo

__all__ = ["PARTS", "Splits"]

PARTS = ("training", "validation", "test")

logger = logging.getLogger(__name__)


class Splits:
    """Class names and the items of each part.

    Args:
        dataset_dir: folder with the images.
        datalist: JSON or CSV file with labels and parts; None: as found in ``dataset_dir``.
        output_dir: where the data list is written once.
        seed: of the split.
        class_names: in the order of the network's outputs; None: as found in the data.
        ckpt_dir: where model.json names the classes when there is no data at all.
        dicom_series: a folder of DICOM slices is one volume.
        layout: how the archive of a public data set is laid out; None: as found.
        source: what is known of that data set, for messages.
        download: whether a MedMNIST archive that is lacking is fetched into ``dataset_dir``, or in which size.
        image_size: length of each image axis, which decides the size to fetch where ``download`` does not.
        task: "multiclass" or "multilabel".
        uncertain: what uncertain labels mean, see ``medmamba_monai.data.findings.indicator``.
        allow_leakage: train although two parts share patients or pictures.
        progress: show a progress bar while images are compared.
    """

    def __init__(
        self,
        dataset_dir: str,
        datalist: str | None = None,
        *,
        output_dir: str,
        seed: int = 0,
        class_names: list[str] | None = None,
        ckpt_dir: str | None = None,
        dicom_series: bool = False,
        layout: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | None = None,
        download: bool | int = False,
        image_size: Sequence[int] = (),
        task: str = "multiclass",
        uncertain: str = "refuse",
        allow_leakage: bool = False,
        progress: bool = False,
    ) -> None:
        self.dataset_dir = str(Path(dataset_dir).expanduser())
        self.file = datalist
        self.output_dir = output_dir
        self.seed = seed
        self.given_names = class_names
        self.ckpt_dir = ckpt_dir
        self.dicom_series = dicom_series
        self.layout = None if layout is None else parse_layout(layout)
        self.given_layout = layout
        self.source = None if source is None else DataSource.parse(source)
        self.download, self.image_size = download, image_size
        self.task = task
        self.uncertain = uncertain
        self.allow_leakage = allow_leakage
        self.progress = progress

    @cached_property
    def datalist(self) -> Datalist:
        """The data list: read, or made and written to ``output_dir``; by the first process for all of them.

        Raises:
            DataError: there is no usable data; where the data set is known, what it should look like.
        """
        problem = None
        try:
            return on_first_process(self._prepared)
        except DataError as error:
            problem = error
        # outside the handler, so that the message shown is this one and not the cause that it repeats
        written = str(Path(self.output_dir).expanduser().resolve())
        about_archive = self.file is None and not (problem.where or "").startswith(written)
        raise self.source.explain(problem) if self.source is not None and about_archive else problem

    def _prepared(self) -> Datalist:
        folder: str | Path = self.dataset_dir
        if self.download is not False:
            folder = self._fetched()
        if not Path(folder).exists():
            raise DataError(
                "there is no such folder",
                where=f"dataset_dir {self.dataset_dir}",
                remedy="give --dataset_dir",
            )
        return prepare_datalist(
            folder,
            self.file,
            output_dir=self.output_dir,
            seed=self.seed,
            class_names=self.given_names,
            dicom_series=self.dicom_series,
            layout=self.given_layout,
            task=self.task,
            uncertain=self.uncertain,
            allow_leakage=self.allow_leakage,
            keep_copies_together=True,
            progress=self.progress,
        )

    def _fetched(self) -> str | Path:
        """The folder, or the archive in it that was asked for, fetched if it is lacking.

        Raises:
            ConfigError: the data set cannot be fetched.
        """
        if self.layout is None or self.layout.kind != "npz":
            raise ConfigError(
                "only MedMNIST sets can be fetched",
                where="download",
                remedy="use a preset dataset_<name>mnist.json, or leave download out and give --dataset_dir",
            )
        path = Path(self.dataset_dir)
        if self.download is True and (path.is_file() or any(self.layout.takes(item.name) for item in path.glob("*"))):
            return path
        size = size_for(self.image_size) if self.download is True else int(self.download)
        return fetch_medmnist(self.layout.place, path, size)

    @cached_property
    def leakage(self) -> Leakage:
        """What two parts share: patients or other groups, and copies of pictures. All images are read once.

        What was found is kept in ``output_dir``, so that a resumed or repeated run does not read them again.
        """
        datalist = self.datalist
        return on_first_process(
            lambda: find_leakage(self.dataset_dir, datalist, cache_dir=self.output_dir, progress=self.progress)
        )

    def refuse_leakage(self) -> None:
        """Stop where two parts share anything, or, where that is allowed, say so loudly.

        Raises:
            DataError: naming files and parts.
        """
        found = self.leakage
        if found.unread:
            logger.warning(
                "%d images could not be read to look for copies, the first: %s", len(found.unread), found.unread[0]
            )
        if not self.allow_leakage:
            found.refuse(self.file or f"data list of {self.dataset_dir}")
        elif found:
            logger.warning("allow_leakage: scores will be too good: %s", found.told())

    @property
    def remarks(self) -> dict[str, Any]:
        """What a record of the run has to say of the data: nothing, or what two parts share."""
        return {"leakage": self.leakage.to_json()} if self.leakage else {}

    @cached_property
    def class_names(self) -> list[str]:
        """Class names: of the data, or of the trained model in ``ckpt_dir`` when there is no data.

        Raises:
            DataError: there is neither.
        """
        model = Path(self.ckpt_dir or ".") / "model.json"
        has_data = Path(self.dataset_dir).exists() or self.download is not False
        if has_data or self.ckpt_dir is None or not model.is_file():
            return list(self.datalist.class_names)
        return list(ModelInfo.load(self.ckpt_dir).class_names)

    def items(self, part: str) -> list[dict[str, Any]]:
        """Return ``{"image": path, "label": label, "file": relative path}`` of every image of a part.

        Raises:
            DataError: the part is empty.
        """
        if not self.datalist.labels(part):
            raise DataError(
                f"the {part} part has no images",
                where=self.file or self.dataset_dir,
                remedy="give a datalist that assigns images to it, or more images a class",
            )
        # groups stay behind: where only some images have one, loaders could not make batches
        kept = ("image", "label", "file")
        return [{key: item[key] for key in kept} for item in self.datalist.items(part, self.dataset_dir)]

    def labels(self, part: str) -> list[Any]:
        """Return the label of every image of a part: a class index, or with several classes a list of 0 and 1."""
        return self.datalist.labels(part)

    def groups(self, part: str) -> dict[str, str]:
        """Return relative path → patient or other group, of the images of a part that have one."""
        return {record["image"]: record["group"] for record in self.datalist.records(part) if "group" in record}

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Digests of which files there are (``files``), and of which file is in which part (``parts``)."""
        names = {part: sorted(record["image"] for record in self.datalist.records(part)) for part in PARTS}
        every = sorted(file for files in names.values() for file in files)
        return {"parts": _digest(names), "files": _digest(every)}

    def same_files(self, trained_on: dict[str, str] | None) -> dict[str, bool | None]:
        """What metrics.json says of the files: whether training had the same ones, null where that is not known.

        Only then were copies and patients in two parts looked for, and do all parts come from one source.

        Args:
            trained_on: the `fingerprint` of the training run, or None where it is not known.
        """
        return {"same_files": None if trained_on is None else self.fingerprint["files"] == trained_on["files"]}

    def check_same_parts(self, trained_on: dict[str, str] | None) -> None:
        """Refuse to evaluate on the files a model was trained with, once they are dealt out anew.

        Args:
            trained_on: the `fingerprint` of the training run, or None where it is not known.

        Raises:
            CheckpointError: the files are the same, the parts are not.
        """
        if trained_on is None or self.fingerprint == trained_on or self.fingerprint["files"] != trained_on["files"]:
            return
        raise CheckpointError(
            "the model was trained on these files in other parts, so test images may have been trained on",
            where=f"data list of {self.dataset_dir}",
            remedy="use the training's output_dir, or --datalist with the datalist.json written there",
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()
