"""``python -m medmamba_monai explain`` from the files to the overlays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.cli import main


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two pictures of odd sizes in folders."""
    rng = np.random.default_rng(0)
    for name, size in (("a/one.png", (50, 70)), ("b/two.png", (64, 40))):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(tmp_path / "images" / name)
    return tmp_path / "images"


def explain(*arguments: object) -> int:
    return main(["explain", *map(str, arguments)])


def test_overlays_maps_and_an_index_are_written(bundle: Path, weights: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert explain(weights.parent, images, "--bundle", bundle, "--out", out, "--device", "cpu") == 0
    index = json.loads((out / "index.json").read_text())
    assert index["method"] == "scan"
    assert "neither to the log-odds" in index["remark"]
    assert [item["file"] for item in index["items"]] == ["a/one.png", "b/two.png"]
    for item, size in zip(index["items"], [(50, 70), (64, 40)], strict=True):
        assert np.load(out / item["map"]).shape == size
        assert item["target"] == item["prediction"]
        assert sum(route["size"] for route in item["routes"].values()) == pytest.approx(1)
        assert {"left to right", "skip connection", "past the scan"} <= set(item["routes"])
        assert 1 / 3 <= item["probability"] <= 1
        odds = item["probability"] / (1 - item["probability"])
        assert item["log_odds"] == pytest.approx(np.log(odds), abs=1e-3)
        assert np.isfinite(item["log_odds_of_mean_image"])
        with Image.open(out / item["overlay"]) as overlay:
            overlay.verify()


def test_originals_are_never_replaced(
    bundle: Path, weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in images.rglob("*.png")}
    options = ("--bundle", bundle, "--device", "cpu", "--method", "gradcam", "--out")
    for given, out in ((images / "a", images / "a"), (images / "a" / "one.png", images / "a"), (images, images / "b")):
        assert explain(weights.parent, given, *options, out) == 2
        assert "the images to explain lie there" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in images.rglob("*.*")} == before


def test_overlays_below_the_images_are_not_explained_again(
    bundle: Path, weights: Path, images: Path, tmp_path: Path
) -> None:
    out = images / "overlays"
    for _ in range(2):
        options = ("--bundle", bundle, "--out", out, "--device", "cpu", "--method", "gradcam")
        assert explain(weights.parent, images, *options) == 0
        index = json.loads((out / "index.json").read_text())
        assert [item["file"] for item in index["items"]] == ["a/one.png", "b/two.png"]
        assert {path.name for path in out.iterdir()} == {
            "index.json", "a_one_overlay.png", "a_one_map.npy", "b_two_overlay.png", "b_two_map.npy"
        }  # fmt: skip


def test_whatever_is_wrong_with_one_file_the_others_are_explained(
    bundle: Path,
    weights: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from medmamba_monai.bundling import explained

    whole = explained.write_overlay

    def failing(path: Path, *rest: Any) -> None:
        if path.name.startswith("a_one"):
            raise ValueError("cannot be drawn")
        whole(path, *rest)

    monkeypatch.setattr(explained, "write_overlay", failing)
    out = tmp_path / "out"
    options = ("--bundle", bundle, "--out", out, "--device", "cpu", "--method", "gradcam")
    (images / "b" / "two.png").rename(images / "b" / "cost$1_$2.png")
    assert explain(weights.parent, images, *options) == 3
    index = json.loads((out / "index.json").read_text())
    assert [item["file"] for item in index["items"]] == ["b/cost$1_$2.png"]
    assert index["refused"] == {"a/one.png": "a/one.png: ValueError: cannot be drawn"}
    assert "a/one.png: ValueError: cannot be drawn" in capsys.readouterr().err


def test_a_class_a_method_and_a_stage_are_chosen(bundle: Path, weights: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--bundle", bundle, "--out", out, "--device", "cpu", "--target", "normal")
    assert explain(weights.parent, images / "a" / "one.png", *options, "--method", "gradcam++", "--layer", 2) == 0
    index = json.loads((out / "index.json").read_text())
    assert (index["method"], index["layer"], len(index["items"])) == ("gradcam++", 2, 1)
    assert index["items"][0]["target"] == "normal"


def test_a_file_that_cannot_be_read_is_named_and_the_others_explained(
    bundle: Path, weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    out = tmp_path / "out"
    assert explain(weights.parent, images, "--bundle", bundle, "--out", out, "--device", "cpu") == 3
    assert len(json.loads((out / "index.json").read_text())["items"]) == 2
    told = capsys.readouterr().err
    assert "broken.png" in told
    assert "1 of 3 files" in told


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--target", "cyst"), 2, "use benign, malignant, normal"),
        (("--layer", "7", "--method", "gradcam"), 2, "0 to 3"),
        (("--layer", "2"), 2, "no option 'layer'"),
        (("--set", "window"), 2, "KEY=VALUE"),
        (("--set", "windw=[1,2]"), 2, "window"),
        (("--set", "tta=true"), 2, "one network as it is"),
        (("--set", 'ensemble=["b"]'), 2, "one by one"),
        (("--set", "calibrated=true"), 2, "leave calibrated out"),
    ],
)
def test_mistakes_are_named(
    options: tuple[str, ...],
    code: int,
    said: str,
    bundle: Path,
    weights: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert explain(weights.parent, images, "--bundle", bundle, "--out", tmp_path / "out", *options) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "index.json").exists()


def test_places_that_do_not_exist_are_named(
    bundle: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(tmp_path / "nowhere", tmp_path) == 3
    assert explain(weights.parent, tmp_path / "nowhere.png", "--bundle", bundle) == 3
    assert "nowhere.png" in capsys.readouterr().err
