"""Commands name what was changed and no folder of anybody's; what they say is what MONAI would read back."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from medmamba_monai.report.commands import changes, command_lines

BUNDLE = Path(__file__).parents[2] / "bundles" / "breast_ultrasound_classification"


def configuration(**overrides: Any) -> dict[str, Any]:
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / "train.json"), str(BUNDLE / "configs" / "evaluate.json")])
    for key, value in overrides.items():
        parser[key] = value
    return {**{key: value for key, value in parser.get().items() if key != "_meta_"}, "bundle_root": str(BUNDLE)}


def test_only_what_was_changed() -> None:
    config = configuration(image_size=64, class_names=["a b", "c'd"], output_dir="/home/me/out", split="validation")
    words = shlex.split(command_lines({"evaluate": config})["evaluate"].replace("\\\n", " "))
    assert words[:4] == ["python", "-m", "monai.bundle", "run"]
    given = dict(zip(words[4::2], words[5::2], strict=True))
    assert given == {
        "--config_file": "['BUNDLE/configs/train.json','BUNDLE/configs/evaluate.json']",
        "--bundle_root": "BUNDLE",
        "--dataset_dir": "IMAGES",
        "--output_dir": "OUTPUT",
        "--ckpt_dir": "MODELS",
        "--image_size": "64",
        "--class_names": "['a b', \"c'd\"]",
        "--split": "validation",
    }


def test_nested_overrides() -> None:
    config = configuration(**{"validate#dataset#cache_num": 7})
    assert "--validate::dataset::cache_num 7" in command_lines({"evaluate": config})["evaluate"]


def test_no_home_and_no_password() -> None:
    config = configuration(
        datalist="/home/me/lists/mine.json",
        tracking_uri="http://me:secret@server",
        pretrained="C:\\Users\\me\\w.pt",
        layout={"kind": "table", "file": "~/x/t.csv"},
    )
    text = command_lines({"evaluate": config})["evaluate"]
    for secret in ("/home", "secret", "Users", "~", str(BUNDLE.parent)):
        assert secret not in text
    for kept in ("PATH/mine.json", "TRACKING_URI", "PATH/w.pt", "PATH/t.csv"):
        assert kept in text


@pytest.mark.parametrize("root", ["/nowhere", None])
def test_without_the_bundle_every_plain_value_is_given(root: str | None) -> None:
    text = command_lines({"train": {"epochs": 3, "bundle_root": root, "device": "$torch.device('cpu')", "seed": 0}})
    assert "--epochs 3" in text["train"]
    assert "--seed 0" in text["train"]
    assert "torch" not in text["train"]
    assert command_lines({}) == {}


def test_changes() -> None:
    assert list(changes(json.loads("{}"), {"a": 1})) == []
    assert list(changes({"a": [1, 2]}, {"a": [1]})) == [("a", [1, 2])]
    assert list(changes({"a": {"new": 1}}, {"a": {"old": 1}})) == [("a", {"new": 1})]
