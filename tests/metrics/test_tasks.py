"""Each task has its metrics, and refuses those of the other."""

from __future__ import annotations

import pytest

from medmamba_monai.errors import ConfigError
from medmamba_monai.metrics import (
    LOSSES,
    MULTILABEL_SCORE_NAMES,
    SCORE_NAMES,
    check_score,
    classification_report,
    default_score,
    evaluation_of,
    multilabel_report,
    report_of,
    score_mode,
    score_names,
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
        if name not in LOSSES:
            assert report[name] == 1.0
    assert len(set(watched)) == len(watched)


def test_reports_and_names() -> None:
    assert report_of("multiclass") is classification_report
    assert report_of("multilabel") is multilabel_report
    for name in SCORE_NAMES:
        check_score(name, "multiclass")
    for name in MULTILABEL_SCORE_NAMES:
        check_score(name, "multilabel")


def test_an_evaluation_has_intervals_and_a_report_of_an_epoch_has_none() -> None:
    labels, probabilities = [0, 1] * 20, [[0.9, 0.1], [0.4, 0.6]] * 19 + [[0.2, 0.8], [0.4, 0.6]]
    assert "intervals" not in report_of("multiclass")(labels, probabilities, ["a", "b"])
    report = evaluation_of("multiclass")(labels, probabilities, ["a", "b"], clusters=[n // 2 for n in range(40)])
    assert report["resampling"]["unit"] == "group" and report["resampling"]["clusters"] == 20
    assert report["intervals"]["accuracy"][0] < report["accuracy"] < 1


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_a_perfect_network_has_the_best_value_of_each_score(task: str) -> None:
    """What ``score_mode`` says is better is better."""
    right, worse = ([0, 1, 1], [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), ([0, 1, 1], [[0.6, 0.4], [0.8, 0.2], [0.0, 1.0]])
    for name in score_names(task):
        first, second = (
            report_of(task)(
                labels if task == "multiclass" else [[int(n == label) for n in (0, 1)] for label in labels],
                values,
                ["a", "b"],
            )[name]
            for labels, values in (right, worse)
        )
        assert (first > second) if score_mode(name) == "max" else (first < second), name
        assert (name in LOSSES) == (score_mode(name) == "min")


def test_metrics_of_the_other_task_are_named_as_such() -> None:
    with pytest.raises(ConfigError, match="'quadratic_kappa' for task multilabel, it is one of multiclass.*: auc,"):
        check_score("quadratic_kappa", "multilabel")
    with pytest.raises(ConfigError, match="'exact_match' for task multiclass, it is one of multilabel"):
        check_score("exact_match", "multiclass")
    with pytest.raises(ConfigError, match="there is no metric 'kapa'\\. Remedy"):
        check_score("kapa", "multiclass")


@pytest.mark.parametrize("function", [report_of, default_score, lambda task: watched_scores(task, "auc")])
def test_unknown_tasks(function: object) -> None:
    with pytest.raises(ConfigError, match="task='multi'.*multiclass, multilabel"):
        function("multi")  # type: ignore[operator]
