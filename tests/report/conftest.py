"""Folders as evaluate leaves them, without running a network: written file by file."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.data import Datalist
from medmamba_monai.metrics import report_of

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "bundles" / "breast_ultrasound_classification"
HOSTILE = ["<script>alert('class')</script>", 'benign & "quoted"', "{{ 7 * 7 }}"]


def write_predictions(path: Path, names: Sequence[str], labels: Any, values: Any, grouped: bool) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["file", *(["group"] if grouped else []), "label", "prediction", *names])
        for index, (label, row) in enumerate(zip(labels, values, strict=True)):
            if np.ndim(label):
                said = [name for name, value in zip(names, row, strict=True) if value >= 0.5]
                texts = ["|".join(n for n, flag in zip(names, label, strict=True) if flag), "|".join(said)]
                texts = [text or "No Finding" for text in texts]
            else:
                texts = [names[label], names[int(np.argmax(row))]]
            group = [f"p{index // 2}"] if grouped else []
            table.writerow([file_name(index), *group, *texts, *(f"{value:.8g}" for value in row)])


def file_name(index: int) -> str:
    return f"<img src=x onerror=alert({index})>.png" if index == 0 else f"part/image_{index:03d}.png"


def evaluation(
    folder: Path,
    names: Sequence[str] = ("benign", "malignant"),
    task: str = "multiclass",
    count: int = 40,
    empty: Sequence[int] = (),
    grouped: bool = True,
    whole: bool = True,
) -> Path:
    """Write predictions.csv and metrics.json, and with ``whole`` all the rest that training and evaluation leave."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    if task == "multilabel":
        labels = (rng.random((count, len(names))) < 0.4).astype(int)
        labels[:, list(empty)] = 0
        values = 1 / (1 + np.exp(-(rng.normal(size=labels.shape) + 2 * labels - 1)))
    else:
        labels = rng.choice([number for number in range(len(names)) if number not in empty], count)
        logits = rng.normal(size=(count, len(names))) + np.eye(len(names))[labels]
        values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    values[0] = values[0] if task == "multilabel" else np.roll(np.eye(len(names))[labels[0]], 1)  # surely wrong
    write_predictions(folder / "predictions.csv", list(names), labels, values, grouped)
    metrics = report_of(task)(labels, values, list(names))
    metrics |= {"same_files": True} if whole else {}
    (folder / "metrics.json").write_text(json.dumps(metrics, default=float))
    if whole:
        add_the_rest(folder, list(names), task, labels, grouped)
    return folder


def add_the_rest(folder: Path, names: list[str], task: str, labels: Any, grouped: bool) -> None:
    tested = [
        {"image": file_name(i), "label": label} | ({"group": f"p{i // 2}"} if grouped else {})
        for i, label in enumerate(labels.tolist())
    ]
    other = [0] * len(names) if task == "multilabel" else 0
    rest = [{"image": f"t{i}.png", "label": other} | ({"group": f"t{i}"} if grouped else {}) for i in range(9)]
    Datalist(names, rest[:6], rest[6:], tested, seed=0, source={"splits": "drawn"}, task=task).save(
        folder / "datalist.json"
    )
    (folder / "history.csv").write_text(
        "epoch,train_loss,learning_rate,seconds,val_auc\n1,0.9,0.001,60,0.5\n2,0.7,0.0005,60,0.75\n"
    )
    for mode, files in {"train": ["train"], "evaluate": ["train", "evaluate"]}.items():
        config: dict[str, Any] = {}
        for name in files:
            config |= json.loads((BUNDLE / "configs" / f"{name}.json").read_text())
        config = {key: value for key, value in config.items() if "::" not in key}
        config |= {"bundle_root": str(BUNDLE), "dataset_dir": "/home/somebody/scans/ultrasound", "epochs": 2}
        (folder / f"{mode}_config.json").write_text(json.dumps(config))
    (folder / "explanations").mkdir()
    Image.new("RGB", (40, 30), "red").save(folder / "explanations" / "one.png")
    item = {"file": "<b>f</b>.png", "label": names[0], "prediction": names[1], "target": names[1], "probability": 0.75}
    items = [item | {"overlay": "one.png", "why": "correct"}, item | {"overlay": "../../../etc/gone.png", "why": "x"}]
    (folder / "explanations" / "index.json").write_text(json.dumps({"method": "scan <i>", "items": items}))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    return lambda **options: evaluation(tmp_path / "eval", **options)
