"""Search spaces: what they say, and what they may not touch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmamba_monai.bundling.search_space import check_keys, parse_space, suggest
from medmamba_monai.errors import ConfigError

optuna = pytest.importorskip("optuna")

CONFIG = {
    "learning_rate": 1e-3, "warmup_epochs": 3, "image_size": 64, "ema": False,
    "network_def": {"_target_": "x", "preset": "nano"},
    "train": {"trainer": {"max_epochs": 5, "decollate": 0}, "handlers": [{"a": 1}]},
}  # fmt: skip


def test_kinds_and_values(tmp_path: Path) -> None:
    given = {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "warmup_epochs": {"low": 0, "high": 6, "step": 2},
        "clip_norm": {"low": 1, "high": 2, "type": "float"},
        "image_size": [[32, 40], 64],
    }
    file = tmp_path / "space.json"
    file.write_text(json.dumps(given))
    space = parse_space(str(file))
    assert [item.kind for item in space] == ["float", "int", "float", "categorical"]
    assert space == parse_space(json.dumps(given))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        drawn = suggest(study.ask(), space)
        assert 1e-4 <= drawn["learning_rate"] <= 1e-2
        assert drawn["warmup_epochs"] in (0, 2, 4, 6)
        assert isinstance(drawn["clip_norm"], float)
        assert drawn["image_size"] in ([32, 40], 64)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{", "cannot be read"),
        ("nowhere.json", "cannot be read"),
        ("{}", "names no keys"),
        ('{"ema": [true]}', "two choices"),
        ('{"ema": 3}', "neither list"),
        ('{"a": {"low": 1, "hight": 2}}', "did you mean 'high'"),
        ('{"a": {"low": 2, "high": 1}}', "no range"),
        ('{"a": {"low": 0, "high": 1, "log": true}}', "log needs"),
        ('{"a": {"low": 0, "high": 1.5, "type": "int"}}', "whole ends"),
        ('{"a": {"low": 0, "high": 1, "type": "number"}}', "type 'number'"),
    ],
)
def test_spaces_that_make_no_sense(space: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_space(space)


@pytest.mark.parametrize(
    "key",
    ["learning_rate", "network_def#preset", "network_def#d_state", "train::trainer::decollate", "train#handlers#0#a"],
)
def test_keys_there_are(key: str) -> None:
    check_keys(parse_space(json.dumps({key: {"low": 1, "high": 2}})), CONFIG)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("split", "see the test part"),
        ("seed", "share data"),
        ("datalist", "share data"),
        ("validate#evaluator#val_handlers", "share data"),
        ("train#trainer#max_epochs", "share data"),
        ("lr_scheduler::total_steps", "share data"),
        ("train#dataset#data", "share data"),
        ("output_dir", "share data"),
        ("resume", "share data"),
        ("learning_rat", "did you mean 'learning_rate'"),
        ("optimiser#lr", "no such key"),
        ("train#handlers#7#a", "no such key"),
        ("ema", "true or false, not 1"),
        ("warmup_epochs", "fixed value"),
    ],
)
def test_keys_that_are_refused(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_keys(parse_space(json.dumps({key: {"low": 1, "high": 2}})), CONFIG, ["warmup_epochs"])
