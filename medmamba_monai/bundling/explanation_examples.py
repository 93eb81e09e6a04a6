"""Explanations of a few evaluated images, for people who look through a run. Configs name the handler.

Imports explain, handlers and metrics; draws with matplotlib.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.transforms import Compose
from torch import nn

from medmamba_monai.bundling.explained import INDEX_NAME, OVERLAY, file_stem, in_file, names_of, write_overlay
from medmamba_monai.bundling.opened import read_prepared
from medmamba_monai.errors import MedMambaError
from medmamba_monai.explain import METHODS, explain
from medmamba_monai.handlers.files import require_writable, write_json
from medmamba_monai.handlers.hooks import is_rank_zero, unwrapped
from medmamba_monai.handlers.predictions import PREDICTIONS_NAME
from medmamba_monai.metrics import PredictionTable
from medmamba_monai.networks import MedMamba

__all__ = ["ERROR", "RIGHT", "Example", "ExplanationExamples", "choose_examples"]

ERROR, RIGHT = "most confident error", "correct"
FOLDER = "explanations"
KEPT_INDEX_NAME = "index_asked_for.json"

logger = logging.getLogger(__name__)


class Example(NamedTuple):
    """An evaluated image to explain: its row in the table, the class to explain, and why it was chosen."""

    row: int
    target: int
    why: str


def choose_examples(table: PredictionTable, count: int) -> list[Example]:
    """Choose the most confident errors, at most half of all where there are correct ones, then correct ones.

    Both take turns among the classes explained. With one class an image the class predicted is explained, with several
    the one whose probability is furthest from the truth, or of images without an error the likeliest.

    Args:
        table: predictions with labels.
        count: of examples.
    """
    if table.labels is None:
        return []
    p = table.probabilities
    if table.task == "multilabel":
        distance = np.abs(p - table.labels)
        wrong = distance.max(1) >= 0.5
        targets = np.where(wrong, distance.argmax(1), p.argmax(1))
        sureness = np.where(wrong, distance.max(1), p.max(1))
    else:
        targets, sureness = p.argmax(1), p.max(1)
        wrong = targets != table.labels
    errors, right = (_taking_turns(np.flatnonzero(part), targets, sureness) for part in (wrong, ~wrong))
    share = max(count // 2, count - len(right))
    rows = errors[:share] + right[: count - min(share, len(errors))]
    return [Example(row, int(targets[row]), ERROR if wrong[row] else RIGHT) for row in rows]


def _taking_turns(rows: np.ndarray, targets: np.ndarray, sureness: np.ndarray) -> list[int]:
    """Rows by falling sureness, the surest of every class first, then the second of every class, and so on."""
    seen: dict[int, int] = {}
    ranked = []
    for row in rows[np.argsort(-sureness[rows], kind="stable")]:
        turn = seen[int(targets[row])] = seen.get(int(targets[row]), -1) + 1
        ranked.append((turn, int(row)))
    return [row for _, row in sorted(ranked, key=lambda pair: pair[0])]


class ExplanationExamples:
    """Evaluator handler: draws explanations of a few images into ``explanations/`` once the predictions are written.

    A MedMamba is explained by "scan", any other network, an exported one too, by occlusion; index.json says which.

    Args:
        network: that was evaluated.
        preprocessing: from a file's path to the network's input.
        items: of the part evaluated: "image" (path) and "file" (name in predictions.csv).
        output_dir: holds predictions.csv.
        task: "multiclass" or "multilabel".
        count: of examples; 0: none.
        device: of the network.
        averaged: predictions are means over views or networks, of which the maps show this network alone.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Compose,
        items: Sequence[Mapping[str, Any]],
        output_dir: str,
        task: str = "multiclass",
        count: int = 6,
        device: str | torch.device = "cpu",
        averaged: bool = False,
    ) -> None:
        self.network, self.preprocessing, self.task, self.device = network, preprocessing, task, device
        self.paths = {str(item["file"]): str(item["image"]) for item in items}
        self.output_dir, self.count, self.averaged = Path(output_dir), count, averaged

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator, after the handler that writes the predictions."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw the overlays and write index.json; what an earlier evaluation drew is removed."""
        if not is_rank_zero():
            return
        folder = self.output_dir / FOLDER
        _remove_examples(folder)
        if self.count == 0:
            return
        table = PredictionTable.read(self.output_dir / PREDICTIONS_NAME, self.task)
        network = unwrapped(self.network)
        method = "scan" if isinstance(network, MedMamba) else "occlusion"
        require_writable(folder)
        taken = [{"overlay": file.name} for file in folder.glob("*.png")] if folder.is_dir() else []
        items: list[dict[str, Any]] = []
        for example in choose_examples(table, self.count):
            try:
                items.append(self._drawn(network, method, table, example, folder, [*taken, *items]))
            except (MedMambaError, OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
                logger.warning("%s could not be explained: %s", table.files[example.row], error)
        write_json(folder / INDEX_NAME, {"method": method, "items": items})
        logger.info("explained %d images by %s in %s", len(items), METHODS[method].title, folder)

    def _drawn(
        self,
        network: nn.Module,
        method: str,
        table: PredictionTable,
        example: Example,
        folder: Path,
        before: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        file, names = table.files[example.row], table.class_names
        prepared = read_prepared(self.preprocessing, self.paths[file])
        options = {} if method == "scan" else {"overlap": 0.0}  # a few seconds for all are enough
        found = explain(network, prepared.tensor[None].to(self.device), method, example.target, self.task, **options)
        truth, prediction = (names_of(flags, names) for flags in _decisions(table, example.row))
        target, probability = names[example.target], float(table.probabilities[example.row, example.target])
        overlay = f"{file_stem(file, [item['overlay'] for item in before])}{OVERLAY}.png"
        title = f"{file}: {truth}, predicted {prediction}\nfor {target}, probability {probability:.3f}"
        own: dict[str, Any] = {}
        if self.averaged:
            own = {"own_probability": float(found.probabilities[0, example.target])}
            title += f" as a mean; the map is of one network and view alone, which say {own['own_probability']:.3f}"
        write_overlay(folder / overlay, prepared, in_file(prepared, found), found, title)
        return {
            "file": file,
            "label": truth,
            "prediction": prediction,
            "target": target,
            "probability": probability,
            "overlay": overlay,
            "why": example.why,
            **own,
        }


def _remove_examples(folder: Path) -> None:
    """Remove what an earlier evaluation drew; what was asked for by the command stays, its index under another name."""
    index = folder / INDEX_NAME
    if not index.is_file():
        return
    try:
        items = json.loads(index.read_text(encoding="utf-8"))["items"]
        drawn = [Path(str(item["overlay"])).name for item in items if item.get("why") in (ERROR, RIGHT)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        items, drawn = [None], []
    for name in drawn:
        (folder / name).unlink(missing_ok=True)
    if len(drawn) == len(items):
        index.unlink()
    else:
        index.replace(folder / KEPT_INDEX_NAME)
    if not any(folder.iterdir()):
        folder.rmdir()


def _decisions(table: PredictionTable, row: int) -> tuple[list[bool], list[bool]]:
    """For each class whether the image has it, and whether it was predicted."""
    labels, p = table.labels, table.probabilities[row]
    if labels is None:
        raise ValueError("a table without labels")
    if table.task == "multilabel":
        return [bool(flag) for flag in labels[row]], [bool(value >= 0.5) for value in p]
    return [k == int(labels[row]) for k in range(len(p))], [k == int(p.argmax()) for k in range(len(p))]
