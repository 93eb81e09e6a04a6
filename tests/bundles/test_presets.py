"""The data-set presets on tiny copies of the archives: what they list, what runs with them, what they refuse."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.bundling.splits import Splits
from medmamba_monai.data.datalist import Datalist
from medmamba_monai.data.medmnist_table import MEDMNIST_MD5
from medmamba_monai.errors import CheckpointError, ConfigError, DataError, MedMambaError

from .conftest import REPOSITORY, BundleCopy
from .standins import CLASSES, PARTS, Truth, make, npz

FILES = {path.stem.removeprefix("dataset_"): path for path in REPOSITORY.glob("bundles/*/configs/dataset_*.json")}
BUNDLE = {name: path.parents[1].name.removesuffix("_classification") for name, path in FILES.items()}
ONE_A_BUNDLE = {
    "abdominal_ct": "organsmnist",
    "blood_microscopy": "bloodmnist",
    "breast_ultrasound": "fetal_planes_db",
    "chest_xray": "cpn_xray",
    "colon_histopathology": "pathmnist",
    "ear_otoscopy": "otoscopy2024",
    "gi_endoscopy": "kvasir",
    "retinal_fundus": "retinamnist",
    "retinal_oct": "octmnist",
    "skin_dermatoscopy": "dermamnist",
    "skin_photo": "pad_ufes_20",
}
QUICK = {"fetal_planes_db", "cpn_xray", "retinamnist"}  # a table, folders, an archive


def keys_of(name: str) -> dict[str, Any]:
    return json.loads(FILES[name].read_text(encoding="utf-8"))


def splits(name: str, data: Path, output: Path, **changes: Any) -> Splits:
    keys = keys_of(name)
    given = {"layout": keys["layout"], "source": keys["data_source"], "class_names": keys["class_names"]}
    return Splits(str(data), output_dir=str(output), **{**given, **changes})


def bundle_for(name: str, folder: Path) -> BundleCopy:
    root = folder / "bündle"
    shutil.copytree(FILES[name].parents[1], root, ignore=shutil.ignore_patterns("models", "eval"))
    return BundleCopy(root, folder / "data dir é", further=[f"dataset_{name}"])


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def refused(bundle: BundleCopy, mode: str, **overrides: Any) -> MedMambaError:
    with pytest.raises((RuntimeError, MedMambaError)) as caught:
        bundle.run(mode, **overrides)
    reason = root_cause(caught.value)
    assert reason is not None
    return reason


def check(datalist: Datalist, truth: Truth, name: str) -> None:
    """Compare a data list with what was written, file by file."""
    assert datalist.class_names == CLASSES[name]
    part_of = {record["image"]: part for part in PARTS for record in datalist.records(part)}
    records = {record["image"]: record for part in PARTS for record in datalist.records(part)}
    assert {file: CLASSES[name][record["label"]] for file, record in records.items()} == truth.labels
    assert {file: record.get("group") for file, record in records.items()} == truth.groups
    patients = {(group, part_of[file]) for file, group in truth.groups.items() if group is not None}
    assert max(Counter(group for group, _ in patients).values(), default=1) == 1, "a patient is in two parts"
    published = set(truth.parts.values())
    for file, part in truth.parts.items():
        if part == "training" and "validation" not in published:
            assert part_of[file] in ("training", "validation")
        elif part is not None:
            assert part_of[file] == part
    for part in PARTS:
        assert set(datalist.labels(part)) == set(range(len(CLASSES[name]))), f"{part} lacks a class"


def test_there_is_a_preset_for_every_data_set_and_one_for_every_bundle() -> None:
    assert set(FILES) == set(CLASSES) == {path.stem for path in (REPOSITORY / "configs" / "datasets").glob("*.json")}
    assert len(FILES) == 16
    assert set(ONE_A_BUNDLE) <= {path.stem for path in (REPOSITORY / "configs" / "modalities").glob("*.json")}
    assert all(BUNDLE[name] == bundle for bundle, name in ONE_A_BUNDLE.items())


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_archive_is_listed_as_published(name: str, tmp_path: Path) -> None:
    keys = keys_of(name)
    assert set(keys) == {"class_names", "layout", "data_source"}
    truth = make(name, tmp_path / "data")
    first = splits(name, tmp_path / "data", tmp_path / "out").datalist
    check(first, truth, name)
    assert splits(name, tmp_path / "data", tmp_path / "out").datalist == first, "the written list is found again"


@pytest.mark.parametrize("name", ["pad_ufes_20", "kvasir"])
def test_an_archive_may_lie_a_folder_deeper(name: str, tmp_path: Path) -> None:
    truth = make(name, tmp_path / "data" / "zr7 (1)")
    (tmp_path / "data" / "__MACOSX").mkdir()
    inside = Truth(*({f"zr7 (1)/{k}": v for k, v in d.items()} for d in (truth.labels, truth.groups, truth.parts)))
    check(splits(name, tmp_path / "data", tmp_path / "out").datalist, inside, name)


@pytest.mark.parametrize("file", ["pneumoniamnist_64.npz", "PneumoniaMNIST_224.npz"])
def test_any_size_of_an_archive_and_the_file_itself_will_do(file: str, tmp_path: Path) -> None:
    truth = npz(tmp_path / "data", "pneumoniamnist", file)
    make("bloodmnist", tmp_path / "data")
    for place in (tmp_path / "data", tmp_path / "data" / file):
        check(splits("pneumoniamnist", place, tmp_path / "out").datalist, truth, "pneumoniamnist")


def test_the_preset_reads_a_real_archive(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "medmnist"
    datalist = splits("pneumoniamnist", folder, tmp_path).datalist
    oracle = np.load(folder / "pneumoniamnist_half.npz")
    for part, short in zip(PARTS, ("train", "val", "test"), strict=True):
        assert datalist.labels(part) == oracle[f"{short}_labels"][:, 0].tolist()


def _cases() -> list[Any]:
    marks = {name: [] if name in QUICK else [pytest.mark.slow] for name in ONE_A_BUNDLE.values()}
    return [pytest.param(name, id=name, marks=mark) for name, mark in marks.items()]


@pytest.mark.parametrize("name", _cases())
def test_a_bundle_trains_evaluates_and_predicts_with_its_preset(name: str, tmp_path: Path) -> None:
    bundle = bundle_for(name, tmp_path)
    bundle.pictures = name in QUICK
    truth = make(name, bundle.data)
    before = sorted(bundle.data.rglob("*"))
    flow = bundle.run("train", image_size=32)
    assert flow.network_def.num_classes == len(CLASSES[name])
    bundle.run("evaluate")
    info = json.loads((bundle.root / "models" / "model.json").read_text(encoding="utf-8"))
    metrics = json.loads((bundle.root / "eval" / "metrics.json").read_text(encoding="utf-8"))
    assert info["class_names"] == metrics["class_names"] == CLASSES[name]
    evaluated = {row["file"]: row for row in read_csv(bundle.root / "eval" / "predictions.csv")}
    assert {file: row["label"] for file, row in evaluated.items()}.items() <= truth.labels.items()
    assert len(evaluated) == metrics["n"]
    if "test" in truth.parts.values():
        assert set(evaluated) == {file for file, part in truth.parts.items() if part == "test"}

    bundle.run("inference", output_dir=str(tmp_path / "new"))
    predicted = {row["file"]: row for row in read_csv(tmp_path / "new" / "predictions.csv")}
    assert set(predicted) == set(truth.labels)
    for file, row in evaluated.items():
        ours, theirs = ([float(rows[label]) for label in CLASSES[name]] for rows in (row, predicted[file]))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert sorted(bundle.data.rglob("*")) == before, "nothing is written into the archive"


def test_new_images_are_predicted_with_the_preset_and_other_classes_refused(tmp_path: Path) -> None:
    bundle = bundle_for("breastmnist", tmp_path)
    make("breastmnist", bundle.data)
    bundle.run("train", image_size=32)
    bundle.further = ["dataset_breastmnist", "evaluate"]  # in whichever order the files are given
    bundle.run("train", image_size=...)
    assert json.loads((bundle.root / "eval" / "metrics.json").read_text())["n"] == 4
    bundle.further = ["dataset_breastmnist"]
    new = make("cervical_us", tmp_path / "new")
    bundle.run("inference", dataset_dir=str(tmp_path / "new"), output_dir=str(tmp_path / "a"))
    assert {row["file"] for row in read_csv(tmp_path / "a" / "predictions.csv")} == set(new.labels)

    make("bloodmnist", tmp_path / "other")
    wrong = refused(bundle, "inference", dataset_dir=str(tmp_path / "other"), output_dir=str(tmp_path / "b"))
    assert "bloodmnist.npz: is another data set than breastmnist" in str(wrong)
    bundle.further = ["dataset_cervical_us"]
    for mode in ("inference", "evaluate"):
        wrong = refused(bundle, mode, dataset_dir=str(tmp_path / "new"), output_dir=str(tmp_path / "c"))
        assert isinstance(wrong, CheckpointError)
        assert "['malignant', 'normal, benign']" in str(wrong)
        assert "metastatic" in str(wrong)
    assert not (tmp_path / "b" / "predictions.csv").exists()
    assert not (tmp_path / "c" / "predictions.csv").exists()


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_folder_that_is_missing_or_empty_tells_what_is_expected(name: str, tmp_path: Path) -> None:
    source = keys_of(name)["data_source"]
    (tmp_path / "empty").mkdir()
    for folder in ("missing", "empty"):
        with pytest.raises(DataError) as caught:
            splits(name, tmp_path / folder, tmp_path / "out").items("training")
        message = str(root_cause(caught.value))
        assert all(f"\n  {line}" in message for line in source["tree"])
        assert folder in message
        assert source["address"] in message
        assert source["license"] in message
        assert ("This layout is" in message) == (source["layout_status"] != "confirmed")


def test_an_archive_that_does_not_fit_names_what_differs(tmp_path: Path) -> None:
    def problem(name: str) -> str:
        with pytest.raises(DataError) as caught:
            _ = splits(name, tmp_path / name, tmp_path / "out").datalist
        assert "is expected in dataset_dir as:" in str(caught.value)
        return str(root_cause(caught.value)).splitlines()[0]

    make("kvasir", tmp_path / "kvasir")
    (tmp_path / "kvasir" / "polyps").rename(tmp_path / "kvasir" / "Polyp")
    assert "kvasir: has no class folder 'polyps'" in problem("kvasir")
    make("cpn_xray", tmp_path / "cpn_xray")
    shutil.copytree(tmp_path / "cpn_xray" / "COVID", tmp_path / "cpn_xray" / "TUBERCULOSIS")
    assert "label 'TUBERCULOSIS' of TUBERCULOSIS" in problem("cpn_xray")
    make("pad_ufes_20", tmp_path / "pad_ufes_20")
    table = tmp_path / "pad_ufes_20" / "metadata.csv"
    content = table.read_text(encoding="utf-8")
    table.write_text(content.replace("diagnostic", "diagnosis"), encoding="utf-8")
    assert "metadata.csv: has no column 'diagnostic'" in problem("pad_ufes_20")
    table.write_text(content, encoding="utf-8")
    shutil.rmtree(tmp_path / "pad_ufes_20" / "images" / "imgs_part_2")
    assert "does not exist" in problem("pad_ufes_20")
    make("fetal_planes_db", tmp_path / "fetal_planes_db")
    table = tmp_path / "fetal_planes_db" / "FETAL_PLANES_DB_data.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("Voluson E6;1", "Voluson E6;2", 1), encoding="utf-8")
    assert "split '2' is unknown" in problem("fetal_planes_db")
    make("pathmnist", tmp_path / "dermamnist")
    assert "holds no dermamnist.npz or dermamnist_SIZE.npz (there is pathmnist.npz)" in problem("dermamnist")


def test_trouble_with_the_written_list_is_not_taken_for_trouble_with_the_archive(tmp_path: Path) -> None:
    truth = make("kvasir", tmp_path / "data")
    _ = splits("kvasir", tmp_path / "data", tmp_path / "out").datalist
    (tmp_path / "data" / next(iter(truth.labels))).unlink()
    with pytest.raises(DataError, match="belongs to other data") as caught:
        _ = splits("kvasir", tmp_path / "data", tmp_path / "out").datalist
    assert "is expected in" not in str(caught.value)


def test_slices_that_the_publisher_windowed_are_not_windowed_again(tmp_path: Path) -> None:
    bundle = bundle_for("organcmnist", tmp_path)
    make("organcmnist", bundle.data)
    flow = bundle.workflow("inference", classes=["a", "b"], model_info={}, image_size=[32, 32])
    reader = flow.parser.get_parsed_content("preprocessing").transforms[0]
    assert flow.parser["window"] == [40, 400]
    values = reader({"image": f"{bundle.data / 'organcmnist.npz'}#train/3"})["image"].numpy()[0]
    stored = np.load(bundle.data / "organcmnist.npz")["train_images"][3]
    np.testing.assert_allclose(values, stored / 255, atol=1e-6)


def test_the_loss_for_grades_and_the_order_of_grades(tmp_path: Path) -> None:
    bundle = bundle_for("retinamnist", tmp_path)
    make("retinamnist", bundle.data)
    flow = bundle.workflow("train")
    assert flow.parser.get_parsed_content("classes") == ["0", "1", "2", "3", "4"]
    assert type(flow.parser.get_parsed_content("loss")).__name__ == "OrdinalLoss"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in of the medmnist package that names files of a local folder as addresses; no network."""
    import hashlib

    served = tmp_path / "served"
    entry = {}
    for size, file in ((28, "bloodmnist.npz"), (64, "bloodmnist_64.npz")):
        npz(served, "bloodmnist", file)
        entry["url" if size == 28 else f"url_{size}"] = (served / file).as_uri()
        digest = hashlib.md5((served / file).read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(MEDMNIST_MD5, file, digest)
    package = tmp_path / "site" / "medmnist"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('importing it makes a folder in the home directory')")
    (package / "info.py").write_text(f"INFO = {{'bloodmnist': {entry!r}}}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return served


def test_a_download_fetches_once_into_the_folder_that_was_named(server: Path, tmp_path: Path) -> None:
    bundle = bundle_for("bloodmnist", tmp_path)
    assert "does not say where to" in str(refused(bundle, "train", download=True, dataset_dir=...))
    assert not (bundle.root / "data").exists()
    bundle.run("train", download=True)
    assert [path.name for path in bundle.data.iterdir()] == ["bloodmnist_64.npz"], "32 pixels need the one of 64"
    shutil.rmtree(server)
    bundle.run("evaluate", download=True)
    bundle.run("inference", output_dir=str(tmp_path / "new"))
    assert len(read_csv(tmp_path / "new" / "predictions.csv")) == 64


def test_a_download_in_a_given_size_and_where_none_can_be(server: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert splits("bloodmnist", data, tmp_path / "out", download=28, image_size=[224]).items("test")
    assert [path.name for path in data.iterdir()] == ["bloodmnist.npz"]
    with pytest.raises(DataError, match="no 128-pixel archive"):
        splits("bloodmnist", data, tmp_path / "out", download=128).items("test")
    with pytest.raises(ConfigError, match="only MedMNIST sets can be fetched"):
        splits("kvasir", data, tmp_path / "out", download=True).items("test")


def test_the_table_in_the_docs_says_what_the_presets_say() -> None:
    text = (REPOSITORY / "docs" / "datasets.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "dataset_" in line]
    expected = []
    for name, path in sorted(FILES.items()):
        keys, bundle = keys_of(name), path.parents[1].name
        source, classes = keys["data_source"], "; ".join(keys["class_names"])
        link = f"[{path.name}](../{path.relative_to(REPOSITORY).as_posix()})"
        cells = [source["name"], bundle, link, f"{len(keys['class_names'])}: {classes}", source["splits"]]
        cells += [source["license"], source["layout_status"], source["layout_source"], source.get("notes", "")]
        expected.append("| " + " | ".join(cells).rstrip() + " |")
    assert rows == expected


@pytest.mark.parametrize("bundle", sorted(ONE_A_BUNDLE))
def test_the_model_card_lists_the_presets(bundle: str) -> None:
    card = (REPOSITORY / "bundles" / f"{bundle}_classification" / "docs" / "README.md").read_text(encoding="utf-8")
    for name, home in BUNDLE.items():
        assert (f"`configs/dataset_{name}.json`" in card) == (home == bundle)
