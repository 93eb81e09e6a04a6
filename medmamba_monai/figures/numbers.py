"""Numbers of metrics.json as figures and pages write them. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Interval", "class_interval", "reason_for", "written"]

Interval = tuple[float, float]


def class_interval(metrics: Mapping[str, Any], name: str, metric: str) -> Interval | None:
    """The 95 % interval of one class's metric; None where metrics.json has none.

    Example:
        >>> class_interval({"per_class": {"cyst": {"auc": 0.8, "intervals": {"auc": [0.7, 0.9]}}}}, "cyst", "auc")
        (0.7, 0.9)
    """
    entry = metrics.get("per_class", {}).get(name, {})
    found = (entry.get("intervals") or {}).get(metric)
    if found is None and metric == "auc":
        found = (metrics.get("auc_delong") or {}).get(name)
    return None if found is None or None in found else (float(found[0]), float(found[1]))


def reason_for(metrics: Mapping[str, Any], metric: str) -> str:
    """Why a metric has no value.

    Example:
        >>> reason_for({"undefined": {"cyst.auc": "no samples of this class"}}, "cyst.auc")
        'no samples of this class'
    """
    return str(metrics.get("undefined", {}).get(metric, "not computed"))


def written(value: float | None, interval: Interval | None = None) -> str:
    """A value with its interval.

    Example:
        >>> written(0.8123, (0.7, 0.9)), written(0.5), written(None)
        ('0.812 [0.700, 0.900]', '0.500', 'undefined')
    """
    if value is None:
        return "undefined"
    return f"{value:.3f}" if interval is None else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
