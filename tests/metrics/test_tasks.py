"""Each task has its metrics, and refuses those of the other."""

from __future__ import annotations

import pytest

from medmamba_monai.errors import ConfigError
from medmamba_monai.metrics import (
    MULTILABEL_SCORE_NAMES,
    SCORE_NAMES,
    check_score,
    classification_report,
    default_score,
    multilabel_report,
    report_of,
    watched_scores,
)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_what_is_watched_is_what_the_report_has(task: str) -> None:
    watched = [default_score(task), *watched_scores(task, default_score(task))]
    labels, probabilities = {
        "multiclass": ([0, 1], [[0.9, 0.1], [0.2, 0.8]]),
        "multilabel": ([[0, 1], [1, 0]], [[0.1, 0.9], [0.8, 0.2]]),
    }[task]
    report = report_of(task)(labels, probabilities, ["a", "b"])
    for name in watched:
        check_score(name, task)
        assert report[name] == 1.0
    assert len(set(watched)) == len(watched)


def test_reports_and_names() -> None:
    assert report_of("multiclass") is classification_report
    assert report_of("multilabel") is multilabel_report
    for name in SCORE_NAMES:
        check_score(name, "multiclass")
    for name in MULTILABEL_SCORE_NAMES:
        check_score(name, "multilabel")


def test_metrics_of_the_other_task_are_named_as_such() -> None:
    with pytest.raises(ConfigError, match="'quadratic_kappa' for task multilabel, it is one of multiclass.*: auc,"):
        check_score("quadratic_kappa", "multilabel")
    with pytest.raises(ConfigError, match="'exact_match' for task multiclass, it is one of multilabel"):
        check_score("exact_match", "multiclass")
    with pytest.raises(ConfigError, match="there is no metric 'kappa'\\. Remedy"):
        check_score("kappa", "multiclass")


@pytest.mark.parametrize("function", [report_of, default_score, lambda task: watched_scores(task, "auc")])
def test_unknown_tasks(function: object) -> None:
    with pytest.raises(ConfigError, match="task='multi'.*multiclass, multilabel"):
        function("multi")  # type: ignore[operator]
