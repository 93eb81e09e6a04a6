"""What a reader has to know before believing the numbers: sentences that follow from the run itself."""

from __future__ import annotations

from typing import Any

from medmamba_monai.figures.truth import support
from medmamba_monai.report.run import Run

__all__ = ["few", "leakage_sentence", "limits", "not_looked_for"]

FEW_IMAGES, FEW_OF_A_CLASS = 100, 20


def limits(run: Run) -> list[str]:
    """Sentences on this evaluation, the gravest first."""
    counts = dict(zip(run.table.class_names, support(run.table), strict=True))
    found = []
    if "leakage" in run.metrics:
        found.append(leakage_sentence(run.metrics["leakage"]) + " Scores are too good.")
    if run.split == "training":
        found.append("The network was trained on these images: the numbers say nothing of new ones.")
    elif run.split == "validation":
        found.append("The weights were chosen on these images, so that the numbers are somewhat too good.")
    absent = [name for name, count in counts.items() if count == 0]
    if absent:
        found.append(
            f"No image has {_listed(absent)}: nothing is known of how the network does there, and means over classes "
            "are undefined."
        )
    if few(run):
        found.append(f"{len(run.table.files)} images are few: differences within the intervals are noise.")
    rare = [f"{name} ({count})" for name, count in counts.items() if 0 < count < FEW_OF_A_CLASS]
    if rare:
        found.append(f"Rough are the numbers of classes with fewer than {FEW_OF_A_CLASS} images: {_listed(rare)}.")
    averaged = run.metrics.get("averaged")
    if averaged:
        found.append(
            f"Each prediction is a mean over {_counted(averaged['views'], 'view')} of the image and "
            f"{_counted(averaged['members'], 'network')}: the numbers hold for that mean alone."
        )
    if run.table.groups is None:
        found.append(
            "Patients are not known: if some have several images, intervals are too narrow, and parts may share them."
        )
    undefined = sum("intervals." not in name for name in run.metrics.get("undefined", {}))
    if undefined:
        found.append(f"{undefined} values could not be computed; their reasons stand below the metrics.")
    found += [
        "Predictive values, accuracy and precision hold at this data's frequencies of classes; a clinic has others.",
        "The images come from the same source as those trained on. Other scanners, sites and patients were not tested."
        if run.same_files
        else not_looked_for(run),
        "Intervals tell the chance of having drawn these images, not that of training anew.",
    ]
    if run.several:
        found.append(f"A class counts as predicted from a probability of {run.threshold:g} on.")
    return found + [f"Not used: {remark}." for remark in run.remarks]


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def few(run: Run) -> bool:
    """Whether there are too few images for fine differences."""
    return len(run.table.files) < FEW_IMAGES


def not_looked_for(run: Run) -> str:
    """That nobody compared these images with those trained on."""
    known = run.metrics.get("same_files") is False
    return (
        "Training used other files; copies and patients shared with them were not looked for."
        if known
        else "Whether training used these files is not recorded; copies and patients shared with others were not "
        "looked for."
    )


def leakage_sentence(leakage: dict[str, Any]) -> str:
    """What parts share, as metrics.json records it."""
    parts = []
    copies = int(leakage.get("exact_copies", 0)) + int(leakage.get("near_copies", 0))
    if copies:
        parts.append(f"{copies} pairs of images in two parts show the same picture")
    if leakage.get("groups"):
        parts.append(f"{leakage['groups']} patients or other groups are in two parts")
    return "Parts share data: " + (" and ".join(parts) or "see metrics.json") + "."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
