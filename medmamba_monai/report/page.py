"""report.html: one page that needs nothing but itself. Every text in it goes through Jinja2's escaping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medmamba_monai.figures import FOLDER, NAMES, worst_mistakes
from medmamba_monai.figures.curves import best_epoch
from medmamba_monai.handlers.mlflow_records import versions
from medmamba_monai.report.commands import command_lines
from medmamba_monai.report.content import Figure, Page, Section, Table
from medmamba_monai.report.embed import Picture, embed
from medmamba_monai.report.limits import leakage_sentence, limits, not_looked_for
from medmamba_monai.report.run import PARTS, Run
from medmamba_monai.report.scores import (
    class_table,
    headline,
    metrics_table,
    number,
    resampling_sentence,
    safety_points,
    threshold_table,
)
from medmamba_monai.report.template import TEMPLATE

__all__ = ["build_page", "render"]

MOST_EXPLAINED = 12
PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "scikit-learn", "matplotlib")
WORDS = {
    "curves": ("Training curves", "Loss, learning rate and scores over the epochs."),
    "training_batch": ("Training batch", "Images as they entered the network in the first step, after augmentation."),
    "confusion_matrix": ("Confusion matrix", "Counts, with shares of each row as colours: rows are the truth."),
    "roc": ("ROC curves", "Each class against the rest; the band holds 95 % of resampled curves at each point."),
    "precision_recall": ("Precision-recall curves", "The dotted line is the share of images that have the class."),
    "score_histograms": ("Score histograms", "Apart is good: images of a class right, all others left."),
    "reliability": ("Reliability diagram", "Points below the dotted line: surer than right. Bars are 95 % intervals."),
    "risk_coverage": ("Risk and coverage", "What is gained by referring the least sure cases to a human."),
    "confident_errors": ("Most confident errors", "Look here for wrong labels, artefacts and shortcuts."),
}


def render(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, StrictUndefined

    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(TEMPLATE)
    return template.render(page=page)


def build_page(run: Run) -> Page:
    """Collect what the files of a run say.

    Args:
        run: from ``report.read_run``; its folder's figures and explanations are embedded.

    Raises:
        DataError: a picture is damaged.
    """
    files = {name: run.folder / FOLDER / f"{name}.png" for name in NAMES}
    examples = _explained_files(run)
    pictures = embed({name: path for name, path in {**files, **examples}.items() if path.is_file()})
    figures = {name: _figure(run, name, pictures[name]) for name in NAMES if name in pictures}
    sections = [
        _data(run),
        _training(run, figures),
        _metrics(run, figures),
        _confidence(run, figures),
        _errors(run, figures),
        _explanations(run, pictures),
        Section("limits", "Limits", points=limits(run)),
        _reproduction(run),
    ]
    count = len(run.table.files)
    groups = "" if run.table.groups is None else f" of {len(set(run.table.groups))} patients or other groups"
    return Page(
        title=f"{_readable(run.experiment)}: {run.name}, {run.split} part",
        subtitle=f"Evaluation of {count} images{groups}; {len(run.table.class_names)} classes"
        + (", several an image possible" if run.several else ""),
        cards=headline(run.metrics, run.table.task),
        sections=sections,
        footer="Made by medmamba_monai from the files beside this page. It may show patients' images and file names: "
        "treat it as you treat the data.",
    )


def _readable(name: str) -> str:
    """A bundle's name as words, which a narrow page can break."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _data(run: Run) -> Section:
    section = Section("data", "Data")
    if run.datalist is None:
        section.texts.append("There is no datalist.json beside this page, so only the evaluated part is known.")
        return section
    # of files that training never had, the other parts of this list were neither trained nor validated on
    parts = PARTS if run.same_files or run.split not in PARTS else (run.split,)
    counts = {part: run.datalist.counts(part) for part in parts}
    names = run.datalist.class_names
    rows = [[name, *(str(counts[part][i]) for part in parts)] for i, name in enumerate(names)]
    totals = [len(run.datalist.records(part)) for part in parts]
    section.tables.append(
        Table("Images of each class and part", ["class", *parts], rows, ["all images", *map(str, totals)])
    )
    grouped = [{r["group"] for r in run.datalist.records(part) if "group" in r} for part in parts]
    if any(grouped):
        told = ", ".join(f"{len(found)} in {part}" for found, part in zip(grouped, parts, strict=True))
        section.points.append(f"Patients or other groups that images belong to: {told}.")
    else:
        section.points.append("The data list names no patients.")
    if any(grouped) and len(parts) > 1:
        shared = (grouped[0] & grouped[1]) | (grouped[0] & grouped[2]) | (grouped[1] & grouped[2])
        section.points.append(f"{len(shared)} of them are in two parts." if shared else "None of them is in two parts.")
    if run.datalist.seed is not None and run.datalist.source.get("splits") == "drawn":
        section.points.append(f"The parts were drawn at random, stratified by class, with seed {run.datalist.seed}.")
    copies = run.datalist.source.get("copies_kept_together")
    if copies:
        section.points.append(f"{len(copies)} sets of copies of one picture were found and kept in one part each.")
    if "leakage" in run.metrics:
        leakage = run.metrics["leakage"]
        section.points.append(leakage_sentence(leakage))
        section.points += [f"For example: {example}" for example in leakage.get("examples", [])[:3]]
    elif run.same_files:
        section.points.append("Training, which compares all images, recorded no copies or patients in two parts.")
    else:
        section.points.append(not_looked_for(run))
    return section


def _training(run: Run, figures: dict[str, Figure]) -> Section:
    section = Section("training", "Training", figures=_those(figures, "curves", "training_batch"))
    if not run.history:
        section.texts.append("There is no history.csv beside this page, so how training went is not shown.")
        return section
    seconds = sum(row.get("seconds") or 0.0 for row in run.history)
    text = f"{len(run.history)} epochs in {seconds / 60:.1f} minutes."
    best = best_epoch(run.history)
    if best is not None:
        text += f" The best validation score is that of epoch {best[1]}: {best[0]} {number(best[2])}."
    section.texts.append(text + " The test part had no say in it.")
    return section


def _metrics(run: Run, figures: dict[str, Figure]) -> Section:
    return Section(
        "metrics",
        "Metrics",
        texts=[resampling_sentence(run.metrics)],
        tables=[metrics_table(run.metrics), class_table(run.metrics)],
        figures=_those(figures, "confusion_matrix", "roc", "precision_recall", "score_histograms"),
        reasons={str(name): str(reason) for name, reason in run.metrics.get("undefined", {}).items()},
    )


def _confidence(run: Run, figures: dict[str, Figure]) -> Section:
    points = safety_points(run.metrics)
    thresholds = threshold_table(run.metrics)
    texts = (
        []
        if points or thresholds
        else ["Calibration, conformal sets and out-of-distribution scores were not part of this run."]
    )
    return Section(
        "confidence",
        "Calibration and referral",
        texts=texts,
        points=points,
        tables=[thresholds] if thresholds else [],
        figures=_those(figures, "reliability", "risk_coverage"),
    )


def _errors(run: Run, figures: dict[str, Figure]) -> Section:
    section = Section("errors", "Worst errors", figures=_those(figures, "confident_errors"))
    mistakes = worst_mistakes(run.table, run.threshold)
    if not mistakes:
        section.texts.append("No image is wrong.")
        return section
    rows = [[each.file, each.truth, each.prediction, number(each.probability)] for each in mistakes]
    head = ["file", "truth", "prediction", "probability"]
    section.tables.append(Table("The most confident errors", head, rows, texts=True, files=True))
    return section


def _explanations(run: Run, pictures: dict[str, Picture]) -> Section:
    section = Section("explanations", "Explanation examples")
    if run.explanations is None:
        section.texts.append("No explanations were made in this run.")
        return section
    section.texts.append(
        f"Method: {run.explanations.get('method', 'unknown')}. A map shows what the score depended on, not why it is "
        "right."
    )
    if any("own_probability" in item for item in _items(run)):
        section.texts.append("The predictions here are means; each map is of one network and one view alone.")
    for index, item in enumerate(_items(run)):
        name = f"explanation {index}"
        if name not in pictures:
            continue
        told = [str(item.get("file", ""))]
        told += [f"{key} {item[key]}" for key in ("label", "prediction", "target") if item.get(key) is not None]
        if isinstance(item.get("probability"), int | float):
            told.append(f"probability {item['probability']:.3f}")
        if isinstance(item.get("own_probability"), int | float):
            told.append(f"map of one network and view alone, which say {item['own_probability']:.3f}")
        told += [str(item["why"])] if item.get("why") else []
        caption = ", ".join(told)
        alt = f"Explanation drawn over {told[0]}"
        section.examples.append(Figure(pictures[name], alt, alt, caption))
    return section


def _reproduction(run: Run) -> Section:
    lines = command_lines(run.configs)
    titles = {"train": "Training", "evaluate": "Evaluation"}
    commands = {titles[mode]: text for mode, text in lines.items()}
    commands["This page again"] = "python -m medmamba_monai report OUTPUT"
    missing = "" if lines else " The configurations of the runs were not saved, so their commands are not known."
    rows = [[name.removeprefix("version."), value] for name, value in versions(PACKAGES).items()]
    return Section(
        "reproduction",
        "Versions and commands",
        texts=[
            "BUNDLE is the folder of the bundle, IMAGES that of the images, MODELS and OUTPUT those of weights and "
            f"results.{missing}"
        ],
        tables=[Table("This page was made with", ["software", "version"], rows, texts=True)],
        commands=commands,
    )


def _figure(run: Run, name: str, picture: Picture) -> Figure:
    title, caption = WORDS[name]
    if name == "reliability" and run.several and (run.metrics.get("reliability") or {}).get("bins"):
        caption = "Points below the dotted line: the class is rarer than stated. Bars are 95 % intervals."
    return Figure(picture, title, f"{title}: {run.name}, {len(run.table.files)} images. {caption}", caption)


def _those(figures: dict[str, Figure], *names: str) -> list[Figure]:
    return [figures[name] for name in names if name in figures]


def _items(run: Run) -> list[dict[str, Any]]:
    items = (run.explanations or {}).get("items", [])
    return [item for item in items if isinstance(item, dict)][:MOST_EXPLAINED]


def _explained_files(run: Run) -> dict[str, Path]:
    """Overlays by number; a name that leads out of the folder is no overlay."""
    folder = run.folder / "explanations"
    names = [Path(str(item.get("overlay", ""))).name for item in _items(run)]
    return {f"explanation {index}": folder / name for index, name in enumerate(names) if name}
