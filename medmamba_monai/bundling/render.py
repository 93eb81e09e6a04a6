"""One modality's overlay and the base files become the files of one bundle. Standard library only."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import medmamba_monai
from medmamba_monai.bundling.keys import KEYS
from medmamba_monai.bundling.layout import json_text
from medmamba_monai.bundling.merge import SEPARATOR, merge, missing, nearest, read_json
from medmamba_monai.bundling.presets import Preset, presets_section, refuse_foreign_keys
from medmamba_monai.errors import ConfigError

__all__ = ["Base", "load_base", "render_bundle"]

STANDALONE = ("train", "inference")
"""Configs a consumer may open alone: they start with everything in base/common.json."""

PATCHES = ("evaluate", "multi_gpu_train")
"""Configs that are merged over train.json by MONAI at run time."""

VOLUME = "volume"
"""The base's file of what bundles with ``"spatial_dims": 3`` in their overlay have on top: keys that pictures do not
know, and those that differ."""

SECTIONS = ("common", *STANDALONE, *PATCHES, "metadata")
TEMPLATES = {
    "docs/README.md": "README.md",
    "docs/data_license.txt": "data_license.txt",
    "configs/logging.conf": "logging.conf",
    "LICENSE": "LICENSE",
}


_TEXTS = {
    2: {
        "directions": "four",
        "one_image": "",
        "reading": "with values in [0, 1], resized to {size} pixels",
        "every_image": "Every image under `dataset_dir`, however deep",
    },
    3: {
        "directions": "six",
        "one_image": " An image is a volume: a NIfTI file (`.nii`, `.nii.gz`), a folder with the slices of one DICOM "
        "series, or a multi-frame DICOM file. Where folders hold several series, `--series` names the one to read by "
        "its UID or description, and of series in time `--frame` chooses a volume; without these keys both are "
        "refused, and so are single slices.",
        "reading": "with values as stored, turned so that rows, columns and slices run towards {axes}, "
        "resampled to voxels of {spacing} mm, and cropped or padded, never stretched, to {size} "
        "voxels around the head: centred on the foreground, and along the body from the top of the head where it is "
        "longer than that",
        "every_image": "Every volume under `dataset_dir`, however deep, a DICOM series counted once",
    },
}
"""What the cards of bundles for pictures and for volumes say of images, by number of dimensions."""

_SIDES = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}


@dataclass(frozen=True)
class Base:
    """What every bundle starts from: parsed JSON by section, text templates by file name, their folder.

    ``volume`` is what bundles for volumes change in the sections.
    """

    folder: Path
    sections: dict[str, dict[str, Any]]
    templates: dict[str, str]
    volume: dict[str, dict[str, Any]]


def load_base(folder: Path) -> Base:
    """Read every base file once.

    Args:
        folder: configs/base.

    Returns:
        The parsed sections and the templates as written.

    Raises:
        ConfigError: a file is missing or is not what it should be.
    """
    sections = {name: read_json(folder / f"{name}.json") for name in SECTIONS}
    templates = {}
    for name in TEMPLATES.values():
        try:
            templates[name] = (folder / name).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError("cannot be read", where=str(folder / name), remedy="restore the template") from error
    return Base(folder, sections, templates, read_json(folder / f"{VOLUME}.json"))


def render_bundle(base: Base, overlay_file: Path, presets: Sequence[Preset] = ()) -> tuple[str, dict[str, str]]:
    """Render the bundle of one overlay.

    Args:
        base: from `load_base`.
        overlay_file: configs/modalities/<name>.json.
        presets: of all bundles; those that name this one are rendered into it.

    Returns:
        The bundle's name (the overlay's file name with ``_classification``), and its files: text by path.

    Raises:
        ConfigError: the overlay leaves out what it must give, or gives what the base does not know.
    """
    overlay = read_json(overlay_file)
    _refuse_unknown(overlay, [*SECTIONS, "classes", "card"], str(overlay_file))
    for required in ("classes", "card"):
        if required not in overlay:
            raise ConfigError(f"key {required!r} is missing", where=str(overlay_file), remedy="every overlay gives it")
    name = f"{overlay_file.stem}_classification"
    merged = _merge_sections(base, overlay, str(overlay_file))
    _refuse_incomplete(merged, base.folder, overlay_file)
    merged["metadata"] = _describe(merged["metadata"], merged["train"], overlay["classes"], name)
    files = {f"configs/{section}.json": json_text(merged[section]) for section in SECTIONS if section != "common"}
    own = [preset for preset in presets if preset.bundle == overlay_file.stem]
    for preset in own:
        refuse_foreign_keys(preset, merged["train"])
        files[f"configs/{preset.file}"] = json_text(preset.keys)
    fields = _card_fields(overlay, merged, name) | {"presets": presets_section(own)}
    for path, template in TEMPLATES.items():
        files[path] = _filled(base.templates[template], fields, base.folder / template, overlay_file)
    return name, files


def _refuse_unknown(given: Iterable[str], known: list[str], where: str) -> None:
    for key in given:
        if key not in known:
            close = nearest(key, known)
            remedy = f"did you mean {close!r}?" if close else f"use one of {', '.join(known)}"
            raise ConfigError(f"section {key!r} is not known", where=where, remedy=remedy)


def _merge_sections(base: Base, overlay: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    volumes = overlay.get("common", {}).get("spatial_dims") == 3
    for section in SECTIONS:
        start = base.sections[section]
        if section in STANDALONE:
            clash = sorted(set(start) & set(merged["common"]))
            if clash:
                raise ConfigError(f"{clash} stand in common.json too", where=str(base.folder / f"{section}.json"))
            start = {**merged["common"], **start}
        if volumes:
            patch = base.volume.get(section, {})
            own = {key: value for key, value in patch.items() if key not in start and SEPARATOR not in key}
            changes = {key: value for key, value in patch.items() if key not in own}
            start = merge({**start, **own}, changes, f"{base.folder / VOLUME}.json, section {section!r}")
        merged[section] = merge(start, overlay.get(section, {}), f"{where}, section {section!r}")
    return merged


def _refuse_incomplete(merged: dict[str, dict[str, Any]], base_folder: Path, overlay_file: Path) -> None:
    for section, config in merged.items():
        for key, wanted in missing(config):
            raise ConfigError(
                f"section {section!r} does not give key {key!r} ({wanted})",
                where=str(overlay_file),
                remedy=f"add it; {base_folder / f'{section}.json'} marks it as required",
            )


def _describe(metadata: dict[str, Any], train: dict[str, Any], classes: list[str], name: str) -> dict[str, Any]:
    """State names, versions and tensors in the metadata from the values the configs really use."""
    colour, size = train["color"] == "rgb", train["image_size"]
    image = {
        "type": "image",
        "format": "RGB" if colour else "magnitude",
        "modality": metadata["data_type"],
        "num_channels": 3 if colour else 1,
        "spatial_shape": size if isinstance(size, list) else [size] * train["spatial_dims"],
        "dtype": "float32",
        "value_range": [-10, 10],
        "is_patch_data": False,
        "channel_def": {str(i): c for i, c in enumerate(("red", "green", "blue") if colour else ("grey",))},
    }
    scores = {
        "num_channels": len(classes),
        "spatial_shape": [1],
        "dtype": "float32",
        "is_patch_data": False,
        "channel_def": {str(i): c for i, c in enumerate(classes)},
    }
    logits = {"type": "logits", "format": "classes", "value_range": [-1000, 1000], **scores}
    probabilities = {"type": "probabilities", "format": "classes", "value_range": [0, 1], **scores}
    tensors = {
        "inputs": {"image": image},
        "outputs": {"pred": logits},
        "post_processed_outputs": {"pred": probabilities},
    }
    packages = {**metadata["required_packages_version"], "medmamba_monai": medmamba_monai.__version__}
    return {**metadata, "name": name, "required_packages_version": packages, "network_data_format": tensors}


def _card_fields(overlay: dict[str, Any], merged: dict[str, dict[str, Any]], name: str) -> dict[str, str]:
    """Return what the text templates may mention: the overlay's card and facts computed from the configs."""
    metadata, train = merged["metadata"], merged["train"]
    known = [key for key in KEYS if any(key.name in merged[section] for section in (*STANDALONE, *PATCHES))]
    rows = [f"| `{key.name}` | {key.meaning} |" for key in known]
    size, dimensions = train["image_size"], train["spatial_dims"]
    texts = {
        key: text.format(
            size=" x ".join(map(str, size if isinstance(size, list) else [size] * dimensions)),
            spacing=train.get("spacing"),
            axes=", ".join(_SIDES[letter] for letter in train.get("orientation", "")),
        )
        for key, text in _TEXTS[dimensions].items()
    }
    # what a card need not say where the bundle trains as most do
    usual = {"loss": "cross-entropy with label smoothing", "layout": "", "several_labels": ""}
    card = {k: "\n".join(v) if isinstance(v, list) else str(v) for k, v in overlay["card"].items()}
    facts = {
        "name": name,
        "description": metadata["description"],
        "intended_use": metadata["intended_use"],
        "classes": ", ".join(overlay["classes"]),
        "color": "RGB" if train["color"] == "rgb" else "grey",
        "channels": "3" if train["color"] == "rgb" else "1",
        "epochs": str(train["epochs"]),
        "batch_size": str(train["batch_size"]),
        "learning_rate": str(train["learning_rate"]),
        "preset": str(train["preset"]),
        "class_weights": ", classes weighted by inverse frequency" if train["class_weights"] else "",
        # an expression stands for the metric of the task, which is multiclass unless told otherwise
        "key_metric": "balanced accuracy" if train["key_metric"][0] == "$" else train["key_metric"].replace("_", " "),
        "monai_version": metadata["monai_version"],
        "pytorch_version": metadata["pytorch_version"],
        "references": "\n".join(f"- {reference}" for reference in metadata["references"]),
        "keys": "\n".join(["| key | meaning |", "|---|---|", *rows]),
    }
    return {**usual, **texts, **card, **facts}


def _filled(template: str, fields: dict[str, str], template_file: Path, overlay_file: Path) -> str:
    try:
        return string.Template(template).substitute(fields)
    except KeyError as error:
        raise ConfigError(
            f"card has no {error.args[0]!r}, which {template_file} mentions",
            where=str(overlay_file),
            remedy="add it to the section 'card'",
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"has a stray $: {error}", where=str(template_file), remedy="write $$ for a dollar"
        ) from error
