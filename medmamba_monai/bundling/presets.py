"""Data-set presets: one config file a public data set, inside the bundle that suits it. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmamba_monai.bundling.merge import nearest, read_json
from medmamba_monai.errors import ConfigError

__all__ = ["Preset", "load_presets", "presets_section", "refuse_foreign_keys"]

REQUIRED_KEYS = ("class_names", "layout", "data_source")
SHOWN = ("name", "splits", "license", "layout_status")
"""What a model card shows of the data source."""


@dataclass(frozen=True)
class Preset:
    """One data set: its name, the modality whose bundle it belongs to, and the top-level keys it sets."""

    name: str
    bundle: str
    keys: dict[str, Any]

    @property
    def file(self) -> str:
        """Name of the file in the bundle's configs folder."""
        return f"dataset_{self.name}.json"


def load_presets(folder: Path, modalities: Iterable[str]) -> list[Preset]:
    """Read every preset.

    Args:
        folder: configs/datasets; there may be none.
        modalities: names of the overlays, one of which a preset must name as its "bundle".

    Raises:
        ConfigError: a file lacks a key or names a bundle that is not built.
    """
    known = sorted(modalities)
    presets = []
    for file in sorted(folder.glob("*.json")):
        keys = read_json(file)
        for key in ("bundle", *REQUIRED_KEYS):
            if key not in keys:
                raise ConfigError(f"key {key!r} is missing", where=str(file), remedy="every preset gives it")
        bundle = keys.pop("bundle")
        if bundle not in known:
            close = nearest(str(bundle), known)
            remedy = f"did you mean {close!r}?" if close else f"use one of {', '.join(known)}"
            raise ConfigError(f"there is no bundle {bundle!r}", where=str(file), remedy=remedy)
        lacking = [key for key in SHOWN if key not in keys["data_source"]]
        if lacking:
            raise ConfigError(f"data_source does not give {lacking[0]!r}", where=str(file))
        presets.append(Preset(file.stem, bundle, keys))
    return presets


def refuse_foreign_keys(preset: Preset, train: dict[str, Any]) -> None:
    """Refuse a preset that sets what the bundle's train.json does not have at its top level.

    Raises:
        ConfigError: naming the key and the nearest one there is.
    """
    for key in preset.keys:
        if key not in train:
            close = nearest(key, train)
            remedy = f"did you mean {close!r}?" if close else "a preset sets top-level keys of train.json only"
            raise ConfigError(f"the bundle does not know {key!r}", where=f"data set {preset.name}", remedy=remedy)


def presets_section(presets: list[Preset]) -> str:
    """The model card's part on the presets; without presets it says so.

    Args:
        presets: of one bundle.
    """
    if not presets:
        return "There is no preset for this bundle yet."
    rows = ["| file | data set | classes | published parts | licence | layout |", "|---|---|---|---|---|---|"]
    for preset in presets:
        name, splits, licence, status = (preset.keys["data_source"][key] for key in SHOWN)
        classes = len(preset.keys["class_names"])
        rows.append(f"| `configs/{preset.file}` | {name} | {classes} | {splits} | {licence} | {status} |")
    sources = [preset.keys["data_source"] for preset in presets]
    notes = [f"- {source['name']}: {source['notes']}" for source in sources if source.get("notes")]
    example = f"['BUNDLE/configs/train.json','BUNDLE/configs/{presets[0].file}']"
    return "\n".join(
        [
            "For these data sets a further config file says class names, layout of the archive and published parts. "
            "It is given last, with training, evaluation and inference alike:",
            "",
            *rows,
            "",
            *([*notes, ""] if notes else []),
            "```",
            f'python -m monai.bundle run --config_file "{example}" --bundle_root BUNDLE --dataset_dir UNPACKED_ARCHIVE',
            "```",
        ]
    )
