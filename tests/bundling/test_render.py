"""An overlay that leaves something out, or says what the base does not know, is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmamba_monai.bundling.keys import KEYS, PARTS
from medmamba_monai.bundling.merge import read_json
from medmamba_monai.bundling.render import load_base, render_bundle
from medmamba_monai.errors import ConfigError


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = read_json(file)
    change(content)
    file.write_text(json.dumps(content))


def render(root: Path) -> tuple[str, dict[str, str]]:
    return render_bundle(load_base(root / "configs" / "base"), root / "configs" / "modalities" / "chest_xray.json")


def test_a_bundle_is_complete_and_has_no_marker_left(clone: Path) -> None:
    name, files = render(clone)
    assert name == "chest_xray_classification"
    configs = {"train", "evaluate", "inference", "multi_gpu_train", "metadata"}
    expected = {f"configs/{config}.json" for config in configs}
    assert set(files) == expected | {
        "configs/logging.conf",
        "docs/README.md",
        "docs/data_license.txt",
        "LICENSE",
    }
    assert not [path for path, text in files.items() if "!required" in text]
    assert not [path for path in ("docs/README.md", "docs/data_license.txt") if "$" in files[path]]
    assert json.loads(files["configs/metadata.json"])["network_data_format"]["outputs"]["pred"]["channel_def"] == {
        "0": "normal",
        "1": "pneumonia",
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda o: o["common"].pop("color"), ["'common'", "'color'", "grey or rgb"]),
        (lambda o: o["train"].pop("train::random_transforms"), ["'train'", "train::random_transforms"]),
        (lambda o: o["metadata"].pop("task"), ["'metadata'", "'task'"]),
        (lambda o: o.pop("classes"), ["'classes'"]),
        (lambda o: o["card"].pop("limitations"), ["limitations", "README.md"]),
        (lambda o: o["train"].update(epoch=3), ["section 'train'", "did you mean 'epochs'"]),
        (lambda o: o["common"].update({"preprocessing::transform": []}), ["did you mean 'transforms'"]),
        (lambda o: o.update(trian={}), ["'trian'", "did you mean 'train'"]),
        (lambda o: o["metadata"].update(autors="x"), ["did you mean 'authors'"]),
    ],
)
def test_a_faulty_overlay_is_refused(change: Callable[[dict[str, Any]], object], words: list[str], clone: Path) -> None:
    overlay = clone / "configs" / "modalities" / "chest_xray.json"
    edit(overlay, change)
    with pytest.raises(ConfigError) as caught:
        render(clone)
    assert all(word in str(caught.value) for word in [*words, "chest_xray.json"]), str(caught.value)


def test_a_key_in_common_and_train_is_refused(clone: Path) -> None:
    edit(clone / "configs" / "base" / "train.json", lambda c: c.update(seed=1))
    with pytest.raises(ConfigError, match="seed"):
        render(clone)


def test_an_overlay_changes_every_config_through_common(clone: Path) -> None:
    edit(
        clone / "configs" / "modalities" / "chest_xray.json",
        lambda o: o["common"].update({"preprocessing::transforms::1::mode": "area"}),
    )
    _, files = render(clone)
    for config in ("train", "inference"):
        assert json.loads(files[f"configs/{config}.json"])["preprocessing"]["transforms"][1]["mode"] == "area"


def test_the_card_tells_the_loss_the_weights_and_the_metric(clone: Path) -> None:
    overlay = clone / "configs" / "modalities" / "chest_xray.json"
    assert "Loss: cross-entropy with label smoothing. The weights" in render(clone)[1]["docs/README.md"]
    edit(overlay, lambda o: o["train"].update(class_weights=True, key_metric="quadratic_kappa"))
    edit(overlay, lambda o: o["card"].update(loss="another"))
    card = render(clone)[1]["docs/README.md"]
    assert "Loss: another, classes weighted by inverse frequency. The weights" in card
    assert "best validation quadratic kappa" in card


def test_a_template_needs_its_fields_and_no_stray_dollar(clone: Path) -> None:
    template = clone / "configs" / "base" / "data_license.txt"
    template.write_text("costs 5$ a file")
    with pytest.raises(ConfigError, match="stray"):
        render(clone)
    template.unlink()
    with pytest.raises(ConfigError, match="data_license"):
        render(clone)


def test_the_table_of_keys_and_the_configs_agree(clone: Path) -> None:
    _, files = render(clone)
    configs = [json.loads(text) for path, text in files.items() if path.endswith(".json")]
    present = {key for config in configs for key in config}
    assert [key.name for key in KEYS if key.name not in present] == []
    assert len({key.name for key in KEYS}) == len(KEYS)
    del configs[[f for f in files if f.endswith(".json")].index("configs/metadata.json")]
    top = {key.split("::")[0] for config in configs for key in config}
    assert top == {key.name for key in KEYS} | PARTS
    readme = files["docs/README.md"]
    assert all(f"| `{key.name}` |" in readme for key in KEYS)


def test_the_card_names_the_metric_that_decides(clone: Path) -> None:
    _, files = render(clone)
    assert "the best validation balanced accuracy are kept" in files["docs/README.md"]
    assert "--task multilabel" in files["docs/README.md"]
    edit(
        clone / "configs" / "modalities" / "chest_xray.json",
        lambda o: (o["train"].update(key_metric="quadratic_kappa"), o["card"].pop("several_labels")),
    )
    _, files = render(clone)
    assert "the best validation quadratic kappa are kept" in files["docs/README.md"]
    assert "--task multilabel" not in files["docs/README.md"]
