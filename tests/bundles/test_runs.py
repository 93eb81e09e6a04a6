"""What users do with a bundle besides the plain run: resume, transfer, other networks, mistakes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.errors import CheckpointError, ConfigError, DataError, MedMambaError

from .conftest import PICTURES, BundleCopy, copy_bundle, write_images


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> BundleCopy:
    """The breast ultrasound bundle after one epoch; tests must not change it."""
    bundle = copy_bundle("breast_ultrasound_classification", tmp_path_factory.mktemp("trained"))
    bundle.run("train")
    return bundle


def refused(kind: type[MedMambaError], bundle: BundleCopy, mode: str, **overrides: Any) -> str:
    """Run the bundle, which has to fail for a reason of ``kind``; return its message."""
    with pytest.raises((RuntimeError, MedMambaError)) as caught:
        bundle.run(mode, **overrides)
    reason = root_cause(caught.value)
    assert isinstance(reason, kind), reason
    return str(reason)


def state_of(bundle: BundleCopy) -> dict[str, torch.Tensor]:
    return torch.load(bundle.root / "models" / "model.pt", weights_only=True)


@pytest.mark.parametrize(("key", "close"), [("epoch", "epochs"), ("learning_rat", "learning_rate")])
def test_a_misspelt_override_stops_the_run(key: str, close: str, fresh: BundleCopy) -> None:
    assert f"did you mean '{close}'" in refused(ConfigError, fresh, "train", **{key: 3})
    assert not (fresh.root / "models").exists()
    assert not (fresh.root / "eval").exists()


def test_a_key_of_another_mode_is_reported_and_no_mistake(
    trained: BundleCopy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = dict.fromkeys(("epochs", "progress"), ...)
    trained.run("inference", output_dir=str(tmp_path / "a"), **given)
    assert "has no effect" not in caplog.text
    trained.run("inference", output_dir=str(tmp_path / "b"), **{**given, "epochs": 3, "datalist": "x.json"})
    told = [record.message for record in caplog.records if "has no effect" in record.message]
    assert told == ["datalist has no effect in this mode", "epochs has no effect in this mode"]
    assert (tmp_path / "b" / "predictions.csv").is_file()


def test_resume_continues_where_training_stopped(fresh: BundleCopy) -> None:
    fresh.run("train", epochs=2)
    assert "epochs" in refused(CheckpointError, fresh, "train", epochs=2, resume=True)
    flow = fresh.run("train", epochs=3, resume=True)
    assert flow.trainer.state.epoch == 3
    assert flow.trainer.state.iteration == 3 * flow.trainer.state.epoch_length
    steps = {int(entry["step"]) for entry in flow.parser.get_parsed_content("optimizer").state.values()}
    assert steps == {3 * flow.trainer.state.epoch_length}


def test_resume_without_a_state_is_refused(fresh: BundleCopy) -> None:
    assert "models" in refused(CheckpointError, fresh, "train", resume=True)


def test_pretrained_weights_keep_the_body_and_replace_the_head(trained: BundleCopy, tmp_path: Path) -> None:
    target = copy_bundle("breast_ultrasound_classification", tmp_path)
    shutil.rmtree(target.data)
    write_images(target.data, ["no", "yes"], 8, color=False)
    flow = target.workflow("train", pretrained=str(trained.root / "models" / "model.pt"))
    flow.initialize()
    network = flow.parser.get_parsed_content("network").state_dict()
    source = state_of(trained)
    differing = {name.split(".")[0] for name in source if not torch.equal(network[name], source[name])}
    assert len(differing) == 1
    assert flow.network_def.num_classes == 2
    flow.run()
    assert json.loads((target.root / "models" / "model.json").read_text())["class_names"] == ["no", "yes"]


def test_pretrained_weights_that_are_missing_or_cannot_fit_are_refused(fresh: BundleCopy) -> None:
    assert "nowhere.pt" in refused(CheckpointError, fresh, "train", pretrained="nowhere.pt")
    other = {"_target_": "torch.nn.Flatten"}
    assert "Flatten" in refused(ConfigError, fresh, "train", pretrained="nowhere.pt", network_def=other)


@pytest.mark.parametrize("mode", ["evaluate", "inference"])
def test_nothing_is_predicted_without_weights(mode: str, fresh: BundleCopy, trained: BundleCopy) -> None:
    assert "model.json" in refused(CheckpointError, fresh, mode)
    (fresh.root / "models").mkdir()
    shutil.copy(trained.root / "models" / "model.json", fresh.root / "models")
    assert "model.pt" in refused(CheckpointError, fresh, mode)
    assert not list(fresh.root.rglob("predictions.csv"))


def test_weights_are_checked_against_what_they_are_used_for(trained: BundleCopy, tmp_path: Path) -> None:
    out = {"output_dir": str(tmp_path)}
    assert "preprocessing" in refused(CheckpointError, trained, "inference", image_size=64, **out)
    assert "channels" in refused(CheckpointError, trained, "inference", color="rgb", **out)
    write_images(tmp_path / "data", ["benign", "malignant"], 8, color=False)
    wrong = refused(MedMambaError, trained, "evaluate", dataset_dir=str(tmp_path / "data"), **out)
    assert "normal" in wrong


def test_evaluating_on_images_dealt_out_anew_is_refused(trained: BundleCopy, tmp_path: Path) -> None:
    out = {"output_dir": str(tmp_path / "elsewhere")}
    assert "datalist.json" in refused(CheckpointError, trained, "evaluate", seed=1, **out)
    trained.run("evaluate", output_dir=str(tmp_path / "same seed"))
    datalist = trained.root / "eval" / "datalist.json"
    trained.run("evaluate", output_dir=str(tmp_path / "given"), seed=1, datalist=str(datalist))


def test_an_external_test_set_may_be_evaluated(trained: BundleCopy, tmp_path: Path) -> None:
    data = write_images(tmp_path / "other", ["benign", "malignant", "normal"], 10, color=False, seed=7)
    shutil.move(data / "benign" / "0.png", data / "benign" / "external.png")
    trained.run("evaluate", dataset_dir=str(data), output_dir=str(tmp_path / "out"))
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_data_that_cannot_be_used_end_in_one_clear_message(
    trained: BundleCopy, fresh: BundleCopy, tmp_path: Path
) -> None:
    missing = refused(DataError, fresh, "train", dataset_dir=str(tmp_path / "missing"))
    assert "missing" in missing
    assert "--dataset_dir" in missing
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(DataError, fresh, "train", dataset_dir=str(tmp_path / "empty"))
    assert "empty" in refused(
        DataError, trained, "inference", dataset_dir=str(tmp_path / "empty"), output_dir=str(tmp_path / "out")
    )
    broken = fresh.data / "benign" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert "0.png" in refused(DataError, fresh, "train")


def test_a_part_without_images_is_named(fresh: BundleCopy, tmp_path: Path) -> None:
    files = sorted(path.relative_to(fresh.data).as_posix() for path in fresh.data.rglob("*.png"))
    names = ["benign", "malignant", "normal"]
    items = [{"image": file, "label": names.index(file.split("/")[0])} for file in files]
    listed = {"class_names": names, "training": items[::2], "validation": items[1::2], "test": []}
    file = tmp_path / "list.json"
    file.write_text(json.dumps(listed))
    fresh.run("train", datalist=str(file))
    message = refused(DataError, fresh, "evaluate", datalist=str(file))
    assert "test" in message
    assert "list.json" in message


def test_any_network_can_take_the_place_of_medmamba(fresh: BundleCopy) -> None:
    other = {
        "_target_": "monai.networks.nets.DenseNet",
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": "$len(@classes)",
        "block_config": [1, 1],
        "init_features": 8,
        "growth_rate": 4,
    }
    fresh.run("train", network_def=other)
    assert "network_def" in refused(CheckpointError, fresh, "inference")
    fresh.run("evaluate", network_def=other, **PICTURES)
    fresh.run("inference", network_def=other)
    assert (fresh.root / "eval" / "predictions.csv").is_file()


def test_every_option_of_training_together(fresh: BundleCopy) -> None:
    flow = fresh.run(
        "train",
        epochs=2,
        class_weights=True,
        balanced_sampling=True,
        ema="true",
        early_stop_patience=1,
        key_metric="auc",
        val_interval=2,
        class_names=["normal", "malignant", "benign"],
        **{"network_def::d_state": 8},
    )
    assert json.loads((fresh.root / "models" / "model.json").read_text())["class_names"][0] == "normal"
    assert "val_auc" in flow.evaluator.state.metrics
    assert flow.evaluator.state.key_metric_name == "val_auc"
    fresh.run("evaluate")
    metrics = json.loads((fresh.root / "eval" / "metrics.json").read_text())
    assert metrics["class_names"] == ["normal", "malignant", "benign"]


@pytest.mark.parametrize(("metric", "mode"), [("log_loss", "min"), ("mcc", "max")])
def test_of_a_loss_the_smallest_is_kept(fresh: BundleCopy, metric: str, mode: str) -> None:
    flow = fresh.workflow("train", key_metric=metric, early_stop_patience=3)
    flow.initialize()
    handlers = flow.parser.get_parsed_content("train::handlers")
    modes = {type(handler).__name__: handler.best.mode for handler in handlers if hasattr(handler, "best")}
    assert modes == {"CheckpointHandler": mode, "EarlyStopping": mode}


def test_inference_looks_into_every_folder(trained: BundleCopy, tmp_path: Path) -> None:
    source = trained.data / "benign" / "0.png"
    for place in ("a", "a/b/c", "ä b"):
        (tmp_path / "in" / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tmp_path / "in" / place / "x.png")
    trained.run("inference", dataset_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "out"))
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {"a/x.png", "a/b/c/x.png", "ä b/x.png"}
    values = [float(row["benign"]) for row in rows]  # the place in a batch may change the last bit
    assert values == pytest.approx([values[0]] * 3, abs=1e-6)


def test_monais_own_tracking_makes_one_run(fresh: BundleCopy) -> None:
    from mlflow.tracking import MlflowClient

    fresh.run("train", tracking="mlflow", mlflow=True, output_dir=..., experiment_name="study")
    client = MlflowClient(f"sqlite:///{fresh.root / 'eval' / 'mlruns.db'}")
    runs = [run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])]
    assert [run.info.status for run in runs] == ["FINISHED"]


def test_the_same_seed_gives_the_same_weights(fresh: BundleCopy, tmp_path: Path) -> None:
    for name in ("one", "two"):
        fresh.run("train", ckpt_dir=str(tmp_path / name), epochs=2)
    fresh.run("train", ckpt_dir=str(tmp_path / "three"), epochs=2, seed=1, output_dir=str(tmp_path / "out"))
    one, two, three = (torch.load(tmp_path / n / "model.pt", weights_only=True) for n in ("one", "two", "three"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], three[name]) for name in one)


def test_the_best_weights_are_chosen_without_the_test_part(fresh: BundleCopy) -> None:
    fresh.run("train")
    datalist = json.loads((fresh.root / "eval" / "datalist.json").read_text())
    expected = state_of(fresh)
    for item in datalist["test"]:
        (fresh.data / item["image"]).write_bytes(b"not an image")
    fresh.run("train")
    state = state_of(fresh)
    assert all(torch.equal(state[name], expected[name]) for name in state)
