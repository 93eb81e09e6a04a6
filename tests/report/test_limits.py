"""What a run's limits are follows from its files."""

from __future__ import annotations

import json
from typing import Any

from medmamba_monai.report import read_run
from medmamba_monai.report.limits import leakage_sentence, limits


def told(folder: Any, split: str | None = None) -> str:
    return "\n".join(limits(read_run(folder, split)))


def test_few_images_and_absent_classes(make: Any) -> None:
    text = told(make(names=["a", "b", "c"], empty=(1,)))
    assert "No image has b:" in text
    assert "40 images are few" in text
    assert "undefined" in text
    assert "Patients are not known" not in text
    assert "same source" in text


def test_many_images_of_unknown_patients(make: Any) -> None:
    text = told(make(count=400, grouped=False))
    assert "few" not in text
    assert "Patients are not known" in text


def test_part_and_leakage(make: Any) -> None:
    folder = make()
    assert "too good" not in told(folder)
    assert "trained on these images" in told(folder, "training")
    assert "chosen on these images" in told(folder, "validation")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["leakage"] = {"exact_copies": 1, "near_copies": 2, "groups": 3}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert "3 pairs of images in two parts show the same picture and 3 patients" in told(folder)
    assert "see metrics.json" in leakage_sentence({})


def test_means_over_views_and_networks(make: Any) -> None:
    folder = make()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert "is a mean over" not in told(folder)
    metrics["averaged"] = {"views": 4, "members": 1}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert "is a mean over 4 views of the image and 1 network:" in told(folder)


def test_threshold_of_several_labels_and_unused_files(make: Any) -> None:
    folder = make(task="multilabel")
    (folder / "history.csv").write_text("x")
    text = told(folder)
    assert "from a probability of 0.5 on" in text
    assert "Not used: history.csv" in text


def test_files_that_training_did_not_have_are_not_called_its_own(make: Any) -> None:
    folder = make()
    assert "not looked for" not in told(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    for known, said in ((False, "Training used other files"), (None, "not recorded")):
        (folder / "metrics.json").write_text(json.dumps(metrics | {"same_files": known}))
        assert said in told(folder)
        assert "same source" not in told(folder)
