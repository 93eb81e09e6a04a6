"""Every bundle, one row each: trains, evaluates, predicts, and passes the checks of MONAI and the zoo."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from .conftest import REPOSITORY, BundleCopy, copy_bundle


class Row(NamedTuple):
    """What a bundle is to do, stated independently of its overlay."""

    name: str
    channels: int
    classes: int
    flips: set[int]
    degrees: int  # the largest rotation in training
    weighted: bool = False
    key_metric: str = "balanced_accuracy"
    window: list[float] | None = None
    size: tuple[int, ...] = (32, 40)
    quick: bool = False  # trained in every run, not only in slow ones: one of each kind that trains fast


TABLE = [
    Row("abdominal_ct_classification", channels=1, classes=11, flips=set(), degrees=10, window=[40, 400]),
    Row("blood_microscopy_classification", channels=3, classes=8, flips={0, 1}, degrees=180, quick=True),
    Row("brain_mri_classification", channels=1, classes=2, flips={1}, degrees=10, size=(40, 32, 36)),
    Row("breast_ultrasound_classification", channels=1, classes=3, flips={1}, degrees=10, quick=True),
    Row("chest_xray_classification", channels=1, classes=2, flips={1}, degrees=10, quick=True),
    Row("colon_histopathology_classification", channels=3, classes=9, flips={0, 1}, degrees=180),
    Row("ear_otoscopy_classification", channels=3, classes=4, flips={1}, degrees=30),
    Row("gi_endoscopy_classification", channels=3, classes=8, flips={0, 1}, degrees=180),
    Row(
        "retinal_fundus_classification",
        channels=3,
        classes=5,
        flips={0, 1},
        degrees=180,
        key_metric="quadratic_kappa",
    ),
    Row("retinal_oct_classification", channels=1, classes=4, flips={1}, degrees=5, weighted=True),
    Row("skin_dermatoscopy_classification", channels=3, classes=7, flips={0, 1}, degrees=180, weighted=True),
    Row("skin_photo_classification", channels=3, classes=6, flips={0, 1}, degrees=180, weighted=True),
]


def _rows(trains: bool) -> Any:
    """Run a test for every row; where it ``trains``, rows that are not quick are left to the slow run.

    So each bundle is trained in one of the two runs, not in both.
    """
    marks = [[pytest.mark.slow] if trains and not row.quick else [] for row in TABLE]
    params = [pytest.param(row, id=row.name, marks=mark) for row, mark in zip(TABLE, marks, strict=True)]
    return pytest.mark.parametrize("row", params, indirect=True, scope="module")


every_row, trained_row = _rows(trains=False), _rows(trains=True)


@pytest.fixture(scope="module")
def row(request: pytest.FixtureRequest) -> Row:
    result: Row = request.param
    return result


@pytest.fixture(scope="module")
def bundle(row: Row, tmp_path_factory: pytest.TempPathFactory) -> BundleCopy:
    """The bundle of a row and its data."""
    return copy_bundle(row.name, tmp_path_factory.mktemp(row.name))


@pytest.fixture(scope="module")
def trained(bundle: BundleCopy) -> BundleCopy:
    """The bundle of a row after one tracked epoch and an evaluation, with all they draw."""
    bundle.pictures = True
    bundle.run("train", mlflow=True)
    bundle.run("evaluate")
    return bundle


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_a_bundle() -> None:
    assert [row.name for row in TABLE] == sorted(path.name for path in (REPOSITORY / "bundles").iterdir())


@trained_row
def test_training_leaves_weights_and_what_they_need(trained: BundleCopy, row: Row) -> None:
    state = torch.load(trained.root / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    info = json.loads((trained.root / "models" / "model.json").read_text())
    assert len(info["class_names"]) == row.classes
    assert (info["channels"], info["image_size"]) == (row.channels, list(row.size))
    assert info["spatial_dims"] == len(row.size)
    assert info["network"]["num_classes"] == row.classes
    assert len(info["preprocessing_digest"]) == 64
    assert "preset" in info["extra"]
    config = json.loads((trained.root / "eval" / "train_config.json").read_text())
    assert config["epochs"] == 1


@trained_row
def test_the_split_is_written_once_and_never_into_the_data(trained: BundleCopy, row: Row) -> None:
    datalist = json.loads((trained.root / "eval" / "datalist.json").read_text())
    parts = [{item["image"] for item in datalist[part]} for part in ("training", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10 * row.classes
    kinds = {".png"} if len(row.size) == 2 else {".nii", ".gz", ".dcm"}
    assert {path.suffix for path in trained.data.rglob("*") if path.is_file()} == kinds


@trained_row
def test_mlflow_has_one_finished_run(trained: BundleCopy, row: Row) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{trained.root / 'eval' / 'mlruns.db'}")
    experiment = client.get_experiment_by_name(row.name)
    (run,) = [r for r in client.search_runs([experiment.experiment_id]) if "train_loss" in r.data.metrics]
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.001"
    assert {"val_balanced_accuracy", f"val_{row.key_metric}"} <= set(run.data.metrics)


@trained_row
def test_evaluation_agrees_with_scikit_learn(trained: BundleCopy, row: Row) -> None:
    from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

    rows = read_csv(trained.root / "eval" / "predictions.csv")
    datalist = json.loads((trained.root / "eval" / "datalist.json").read_text())
    assert {r["file"] for r in rows} == {item["image"] for item in datalist["test"]}
    metrics = json.loads((trained.root / "eval" / "metrics.json").read_text())
    expected = balanced_accuracy_score([r["label"] for r in rows], [r["prediction"] for r in rows])
    assert metrics["balanced_accuracy"] == pytest.approx(expected)
    assert metrics["n"] == len(rows)
    numbers = {name: number for number, name in enumerate(metrics["class_names"])}
    truth, predicted = ([numbers[r[column]] for r in rows] for column in ("label", "prediction"))
    expected = cohen_kappa_score(truth, predicted, labels=list(numbers.values()), weights="quadratic")
    assert metrics["quadratic_kappa"] == pytest.approx(expected)


@trained_row
def test_inference_predicts_what_evaluation_predicted(trained: BundleCopy, tmp_path: Path) -> None:
    names = json.loads((trained.root / "models" / "model.json").read_text())["class_names"]
    trained.run("inference", output_dir=str(tmp_path), batch_size=3)
    rows = {r["file"]: r for r in read_csv(tmp_path / "predictions.csv")}
    assert len(rows) == 10 * len(names)
    assert all("label" not in r for r in rows.values())
    for evaluated in read_csv(trained.root / "eval" / "predictions.csv"):
        predicted = rows[evaluated["file"]]
        np.testing.assert_allclose(
            [float(predicted[name]) for name in names], [float(evaluated[name]) for name in names], atol=1e-5
        )
        assert predicted["prediction"] == evaluated["prediction"]


@trained_row
def test_validation_and_inference_see_the_same_tensors(trained: BundleCopy, row: Row) -> None:
    flow, inference = trained.workflow("train"), trained.workflow("inference")
    flow.initialize()
    inference.initialize()
    by_file = {item["file"]: item["image"] for item in inference.dataset}
    validated = list(flow.val_dataset)
    assert validated
    for item in validated:
        assert item["image"].shape == (row.channels, *row.size)
        assert torch.equal(item["image"], by_file[item["file"]])


@every_row
def test_augmentation_flips_and_turns_only_as_the_modality_allows(bundle: BundleCopy, row: Row) -> None:
    flow = bundle.workflow("train")
    transforms = flow.parser["train"]["random_transforms"]
    assert {t["spatial_axis"] for t in transforms if t["_target_"].endswith("RandFlipd")} == row.flips
    turns = [t["rotate_range"] for t in transforms if "rotate_range" in t]
    assert np.degrees(turns).max() == pytest.approx(row.degrees, abs=2)
    flow.initialize()
    first, again = flow.train_dataset[0]["image"], flow.train_dataset[0]["image"]
    assert not torch.equal(first, again), "training images are not augmented"
    assert torch.isfinite(first).all()
    assert pickle.dumps(flow.train_dataset), "loader processes could not be started where they are not forked"


@every_row
def test_the_recipe_is_that_of_the_modality(bundle: BundleCopy, row: Row) -> None:
    flow = bundle.workflow("train")
    assert flow.parser["class_weights"] is row.weighted
    flow.initialize()
    assert flow.evaluator.state.key_metric_name == f"val_{row.key_metric}"
    loss = flow.parser.get_parsed_content("loss")
    assert type(loss).__name__ == ("OrdinalLoss" if row.key_metric == "quadratic_kappa" else "CrossEntropyLoss")
    assert (loss.weight is not None) is row.weighted
    for mode in ("train", "inference"):
        assert bundle.workflow(mode).parser["window"] == row.window


@trained_row
@pytest.mark.parametrize("mode", ["train", "evaluate", "inference"])
def test_monai_finds_every_property(trained: BundleCopy, mode: str) -> None:
    flow = trained.workflow(mode)
    flow.initialize()
    assert flow.check_properties() == []


@every_row
def test_the_metadata_fits_the_schema_of_the_zoo(bundle: BundleCopy, tmp_path: Path) -> None:
    from monai.bundle import verify_metadata

    schema = shutil.copy(REPOSITORY / "configs" / "schema" / "meta_schema_20240725.json", tmp_path)
    meta = bundle.root / "configs" / "metadata.json"
    verify_metadata(meta_file=str(meta), filepath=schema)
    broken = {key: value for key, value in bundle.metadata.items() if key != "task"}
    (tmp_path / "metadata.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="task"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=schema)


@every_row
def test_the_metadata_names_versions_that_exist(bundle: BundleCopy, row: Row) -> None:
    import medmamba_monai

    assert bundle.metadata["name"] == row.name
    assert bundle.metadata["version"] in bundle.metadata["changelog"]
    assert bundle.metadata["required_packages_version"]["medmamba_monai"] == medmamba_monai.__version__


@trained_row
def test_the_network_is_what_the_metadata_says(trained: BundleCopy) -> None:
    from monai.bundle import verify_net_in_out

    where: dict[str, Any] = {
        "meta_file": str(trained.root / "configs" / "metadata.json"),
        "config_file": str(trained.root / "configs" / "inference.json"),
        "bundle_root": str(trained.root),
        "device": "cpu",
    }
    verify_net_in_out("network_def", **where)
    with pytest.raises(ValueError, match="channel number"):
        verify_net_in_out("network_def", **where, **{"_meta_#network_data_format#outputs#pred#num_channels": 99})


@trained_row
def test_torchscript_export_and_load_give_the_trained_network(trained: BundleCopy, row: Row, tmp_path: Path) -> None:
    from monai.bundle import ckpt_export, load

    target = tmp_path / "model.ts"
    config = trained.root / "configs" / "inference.json"
    ckpt_export(
        filepath=str(target),
        ckpt_file=str(trained.root / "models" / "model.pt"),
        config_file=str(config),
        bundle_root=str(trained.root),
    )
    images = torch.rand(2, row.channels, *row.size)
    exported = torch.jit.load(str(target)).eval()
    loaded = load(row.name, bundle_dir=trained.root.parent, device="cpu").eval()
    from_inference = load(row.name, bundle_dir=trained.root.parent, device="cpu", workflow_type="inference").eval()
    with torch.no_grad():
        expected = loaded(images)
        assert expected.shape == (2, row.classes)
        torch.testing.assert_close(exported(images), expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(from_inference(images), expected)
    state = torch.load(trained.root / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


@trained_row
def test_load_replaces_the_head(trained: BundleCopy, row: Row) -> None:
    from monai.bundle import load

    network = load(
        row.name,
        bundle_dir=trained.root.parent,
        device="cpu",
        workflow_type="inference",
        net_override={"num_classes": 5},
    )
    with torch.no_grad():
        assert network.eval()(torch.rand(1, row.channels, *row.size)).shape == (1, 5)
