"""Presets in the builder: rendered into the bundle they name, refused where they do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.bundling.build import build, differences, render_all
from medmamba_monai.bundling.presets import load_presets
from medmamba_monai.errors import ConfigError

NAME = "bundles/chest_xray_classification"


@pytest.fixture
def preset(clone: Path, repository: Path) -> Path:
    """The preset of the clone's only bundle, as a file to edit."""
    file = clone / "configs" / "datasets" / "cpn_xray.json"
    file.parent.mkdir()
    shutil.copy(repository / "configs" / "datasets" / "cpn_xray.json", file)
    return file


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_a_preset_sets_its_keys_and_is_on_the_card(clone: Path, preset: Path) -> None:
    files = render_all(clone)
    given = json.loads(preset.read_text(encoding="utf-8"))
    assert given.pop("bundle") == "chest_xray"
    assert json.loads(files[f"{NAME}/configs/dataset_cpn_xray.json"]) == given
    card = files[f"{NAME}/docs/README.md"].decode()
    assert "| `configs/dataset_cpn_xray.json` | CPN X-ray | 3 | none; drawn by image |" in card
    assert f"\n- CPN X-ray: {given['data_source']['notes']}\n" in card
    assert "dataset_cpn_xray.json" in files["configs/lock.json"].decode()


def test_a_removed_preset_takes_its_file_with_it(clone: Path, preset: Path) -> None:
    build(clone)
    assert differences(clone) == []
    preset.unlink()
    assert f"removed {NAME}/configs/dataset_cpn_xray.json" in build(clone)
    assert "There is no preset for this bundle yet." in (clone / NAME / "docs" / "README.md").read_text()
    assert differences(clone) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("bundle"), "cpn_xray.json: key 'bundle' is missing"),
        (lambda p: p.pop("layout"), "cpn_xray.json: key 'layout' is missing"),
        (lambda p: p.update(bundle="chest_ray"), "no bundle 'chest_ray'.*did you mean 'chest_xray'"),
        (lambda p: p.update(bundle="?"), "no bundle.*use one of chest_xray"),
        (lambda p: p["data_source"].pop("license"), "data_source does not give 'license'"),
        (lambda p: p.update(class_name=["a"]), "data set cpn_xray: .*'class_name'.*did you mean 'class_names'"),
        (lambda p: p.update({"layout::kind": "npz"}), "does not know 'layout::kind'"),
    ],
)
def test_a_preset_that_does_not_fit(
    change: Callable[[dict[str, Any]], object], message: str, clone: Path, preset: Path
) -> None:
    edit(preset, change)
    with pytest.raises(ConfigError, match=message):
        render_all(clone)


def test_no_presets_are_no_error(clone: Path) -> None:
    assert load_presets(clone / "configs" / "datasets", ["chest_xray"]) == []
