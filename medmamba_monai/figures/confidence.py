"""Whether confidence can be believed: reliability diagram and risk-coverage curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from medmamba_monai.figures.style import COLOURS, GREY, Heading, new_figure
from medmamba_monai.figures.truth import Answers, answers
from medmamba_monai.metrics import PredictionTable
from medmamba_monai.metrics.calibration_error import reliability_bins
from medmamba_monai.metrics.referral import confidence_and_error

__all__ = ["reliability", "risk_coverage", "risks_of", "wilson"]

BLUE, ORANGE = COLOURS[0], COLOURS[1]


def reliability(table: PredictionTable, metrics: Mapping[str, Any], heading: Heading) -> Figure:
    """Observed against stated confidence, with 95 % Wilson intervals, above the number of answers in each bin.

    The bins are those of metrics.json where it has some, else as many, of the answers given.
    """
    given = (metrics.get("reliability") or {}).get("bins")
    bins = given or _bins(answers(table, float(metrics.get("threshold", 0.5))))
    of_presence = bool(given) and table.task == "multilabel"  # there each class's probability is what was stated
    filled = [entry for entry in bins if entry["n"]]
    error = metrics.get("ece")
    told = "" if error is None else f" (expected calibration error {error:.3f})"
    figure = new_figure(heading.under(f"Reliability{told}"), height=5.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=":", label="as sure as right")
    x = np.array([entry["confidence"] for entry in filled])
    y = np.array([entry["accuracy"] for entry in filled])
    bounds = np.array([wilson(entry["accuracy"], entry["n"]) for entry in filled]).reshape(-1, 2)
    reach = np.abs(np.stack([y - bounds[:, 0], bounds[:, 1] - y]))
    upper.errorbar(x, y, yerr=reach, color=BLUE, marker="o", markersize=5, capsize=3, elinewidth=1, label="observed")
    upper.set_ylim(-0.02, 1.02)
    upper.set_ylabel("share of images with the class" if of_presence else "share of right answers")
    upper.grid(visible=True)
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    widths = [entry["high"] - entry["low"] for entry in bins]
    lows = [entry["low"] for entry in bins]
    lower.bar(lows, [entry["n"] for entry in bins], widths, align="edge", color=BLUE, alpha=0.45, edgecolor="white")
    lower.set_ylabel("answers" if table.task == "multilabel" else "images")
    lower.set_xlabel("stated probability" if of_presence else "confidence: probability of the answer given")
    lower.set_xlim(max(0.0, min((entry["low"] for entry in filled), default=0.0) - 0.05), 1.02)
    return figure


def risk_coverage(table: PredictionTable, metrics: Mapping[str, Any], heading: Heading) -> Figure:
    """Share of wrong answers among those kept, when the least sure ones are referred to a human."""
    curve = (metrics.get("referral") or {}).get("curve")
    given = answers(table, float(metrics.get("threshold", 0.5)))
    coverage, risk = np.array(curve, dtype=np.float64).T if curve else risks_of(given)
    error = 1 - float(given.correct.mean())
    area = (metrics.get("referral") or {}).get("aurc")
    told = "" if area is None else f" (area {area:.3f})"
    figure = new_figure(heading.under(f"Risk and coverage{told}"))
    axis = figure.subplots()
    axis.plot(coverage, risk, color=BLUE, drawstyle="steps-post", label="least sure answers referred first")
    axis.axhline(error, color=GREY, linestyle=":", linewidth=1, label=f"referred at random: {error:.1%} wrong")
    # metrics.json's curve is of images, with several labels of the share of their answers that is wrong
    wrong = confidence_and_error(table.labels, table.probabilities, table.task)[1] if curve else ~given.correct
    fewest = np.sort(np.asarray(wrong, dtype=np.float64)).cumsum()
    kept = np.arange(1, len(fewest) + 1)
    axis.plot(kept / len(fewest), fewest / kept, color=ORANGE, linestyle="--", linewidth=1.2)
    axis.lines[-1].set_label("every error referred first: the best possible")
    axis.set_xlim(0, 1.01)
    axis.set_ylim(0, max(0.05, 1.08 * float(np.nanmax(risk[coverage >= 0.1], initial=error))))
    axis.set_xlabel("share of " + ("answers" if table.task == "multilabel" and not curve else "images") + " kept")
    axis.set_ylabel("share of wrong answers among them")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.grid(visible=True)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=1)
    return figure


def _bins(given: Answers) -> list[dict[str, Any]]:
    return reliability_bins(given.confidence.clip(0, 1), given.correct)


def risks_of(given: Answers) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Coverage and risk at every distinct confidence, from the surest answer on.

    Example:
        >>> [array.tolist() for array in risks_of(Answers(np.array([0.6, 0.9]), np.array([False, True])))]
        [[0.5, 1.0], [0.0, 0.5]]
    """
    order = np.argsort(-given.confidence, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(given.confidence[order]) != 0, True))
    wrong = np.cumsum(~given.correct[order])[ends]
    return (ends + 1) / len(order), wrong / (ends + 1)


def wilson(share: float, count: float, quantile: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212).

    Example:
        >>> [round(bound, 4) for bound in wilson(0.5, 10)]
        [0.2366, 0.7634]
    """
    spread = quantile**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = quantile / (1 + spread) * float(np.sqrt(share * (1 - share) / count + spread / (4 * count)))
    return middle - half, middle + half
