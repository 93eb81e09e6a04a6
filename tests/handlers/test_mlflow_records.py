"""Flat names and single numbers for MLflow."""

from __future__ import annotations

import math
from importlib.metadata import version

import numpy as np
import pytest
import torch

from medmamba_monai.handlers.mlflow_records import flat_metrics, flat_params, unique_run_name, versions


def test_params_are_flat_short_and_allowed() -> None:
    flat = flat_params({"a": {"b": [1, 2], "c": {}}, "bad=name?": None, "long": "x" * 9000, "t": [{"k": 1}, 2]})
    assert flat["a.b"] == "[1, 2]"
    assert flat["bad_name_"] == "None"
    assert len(flat["long"]) == 6000
    assert flat["t.0.k"] == "1"
    assert "a.c" not in flat


def test_lists_with_mappings_and_plain_values() -> None:
    assert flat_params({"t": [{"k": 1}, 2]}) == {"t.0.k": "1", "t.1": "2"}


def test_metrics(caplog: pytest.LogCaptureFixture) -> None:
    warned: set[str] = set()
    for _ in range(2):
        flat = flat_metrics(
            {
                "auc": np.float64(0.5), "undefined": math.nan, "loss": torch.tensor([1.0]), "vector": [0.1, 0.2],
                "matrix": torch.eye(2), "huge": torch.zeros(100), "text": "x", "ragged": [[1], [1, 2]],
            },
            warned,
        )  # fmt: skip
    assert flat.pop("undefined") != flat.get("undefined")
    assert flat == {
        "auc": 0.5, "loss": 1.0, "vector_0": 0.1, "vector_1": 0.2,
        "matrix_0_0": 1.0, "matrix_0_1": 0.0, "matrix_1_0": 0.0, "matrix_1_1": 1.0,
    }  # fmt: skip
    assert all(type(value) is float for value in flat.values())
    assert warned == {"huge", "text", "ragged"}
    assert len(caplog.records) == 3


def test_names_and_versions() -> None:
    assert len({unique_run_name("train") for _ in range(100)}) == 100
    found = versions(["torch", "no-such-package"])
    assert found["version.torch"] == version("torch")
    assert found["version.no-such-package"] == "unknown"
