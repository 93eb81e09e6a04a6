"""A bundle's training and evaluation in MLflow: a local database and a real server, the model loaded and served."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from medmamba_monai.handlers import default_tracking_uri
from medmamba_monai.metrics import PredictionTable
from tests import servers

from .conftest import BundleCopy, copy_bundle


@dataclass
class Tracked:
    """A bundle that was trained and evaluated under a parent run, in one store."""

    bundle: BundleCopy
    uri: str
    parent: str
    client: MlflowClient
    runs: dict[str, Any]

    def artifacts(self, kind: str) -> set[str]:
        return {item.path for item in self.client.list_artifacts(self.runs[kind].info.run_id)}


def track(folder: Path, uri: str) -> Tracked:
    bundle = copy_bundle("breast_ultrasound_classification", folder, per_class=8)
    client = MlflowClient(uri)
    parent = client.create_run(client.create_experiment("folds"), run_name="all folds").info.run_id
    bundle.pictures = True
    settings = {"mlflow": True, "tracking_uri": uri, "parent_run_id": parent, "window": [100, 200]}
    bundle.run("train", epochs=2, **settings)
    bundle.run("evaluate", **settings)
    experiment = client.get_experiment_by_name("breast_ultrasound_classification").experiment_id
    ids = [run.info.run_id for run in client.search_runs([experiment], order_by=["attributes.start_time"])]
    runs = {kind: client.get_run(run_id) for kind, run_id in zip(("train", "evaluate"), ids, strict=True)}
    return Tracked(bundle, uri, parent, client, runs)


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    """Servers of the environment are not asked, and nothing is reported to MLflow's makers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("DO_NOT_TRACK", "true")
        yield


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory, environment: None) -> Path:
    """Making the tables takes seconds, so both stores begin with a copy."""
    folder = tmp_path_factory.mktemp("empty")
    MlflowClient(default_tracking_uri(folder)).search_experiments()
    return folder / "mlruns.db"


@pytest.fixture(scope="module", params=["sqlite", "server"])
def tracked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        shutil.copy(empty_database, folder)
        yield track(folder, default_tracking_uri(folder))
        return
    shutil.copy(empty_database, folder / "server.db")
    arguments = [
        "server", "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination",
        str(folder / "artifacts"), "--serve-artifacts", "--workers", "1",
    ]  # fmt: skip
    with servers.running(arguments, folder, "/health", {}) as address:
        yield track(folder / "client", address)


@pytest.mark.slow
def test_training_and_evaluation_are_there_as_a_whole(tracked: Tracked) -> None:
    train, evaluate = tracked.runs["train"], tracked.runs["evaluate"]
    assert (train.info.status, evaluate.info.status) == ("FINISHED", "FINISHED")
    for run in (train, evaluate):
        assert run.data.tags["mlflow.parentRunId"] == tracked.parent
        assert run.data.params["window"] == "[100, 200]"
    assert [point.step for point in tracked.client.get_metric_history(train.info.run_id, "val_auc")] == [1, 2]
    assert {"train_loss", "learning_rate", "best_val_balanced_accuracy"} <= set(train.data.metrics)
    report = json.loads((tracked.bundle.root / "eval" / "metrics.json").read_text())
    assert evaluate.data.metrics["test_auc"] == report["auc"]
    assert evaluate.data.metrics["test_per_class/support.benign"] == report["per_class"]["benign"]["support"]
    for name, bounds in report.get("intervals", {}).items():
        if bounds is not None:
            assert evaluate.data.metrics[f"test_intervals/{name}_low95"] == bounds[0]
    of_training, of_evaluation = tracked.artifacts("train"), tracked.artifacts("evaluate")
    assert {"model.json", "datalist.json", "train_config.json"} <= of_training
    assert "model.pt" not in of_training  # it is in the model
    assert {"metrics.json", "predictions.csv", "evaluate_config.json"} <= of_evaluation
    for name in ("figures", "explanations", "report.html"):
        assert (name in of_evaluation) == (tracked.bundle.root / "eval" / name).exists()
    assert ("history.csv" in of_training) == (tracked.bundle.root / "eval" / "history.csv").exists()
    assert ("calibration.json" in of_training) == (tracked.bundle.root / "models" / "calibration.json").exists()


@pytest.mark.slow
def test_the_model_is_found_from_both_runs_and_predicts(
    tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, evaluate = tracked.runs["train"], tracked.runs["evaluate"]
    assert evaluate.data.tags["training_run_id"] == train.info.run_id
    (output,) = train.outputs.model_outputs
    assert [item.model_id for item in evaluate.inputs.model_inputs] == [output.model_id]
    logged = tracked.client.get_logged_model(output.model_id)
    assert str(logged.status) == "READY"
    assert {"best_val_balanced_accuracy", "test_auc"} <= {metric.key for metric in logged.metrics}
    mlflow.set_tracking_uri(tracked.uri)
    try:
        loaded = mlflow.pyfunc.load_model(f"runs:/{train.info.run_id}/model", dst_path=str(tmp_path))
    finally:
        mlflow.set_tracking_uri(None)
    stored = next(tmp_path.rglob("MLmodel")).parent / "data" / "bundle" / "models"
    trained = tracked.bundle.root / "models"
    for name in ("model.pt", "model.json", "calibration.json"):
        assert (stored / name).read_bytes() == (trained / name).read_bytes()
    table = PredictionTable.read(tracked.bundle.root / "eval" / "predictions.csv")
    found = loaded.predict([{"image": str(tracked.bundle.data / file)} for file in table.files])
    np.testing.assert_allclose(found[table.class_names], table.probabilities, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("tracked", ["sqlite"], indirect=True)
def test_serving_answers_with_the_probabilities_of_inference(tracked: Tracked, tmp_path: Path) -> None:
    train = tracked.runs["train"]
    table = PredictionTable.read(tracked.bundle.root / "eval" / "predictions.csv")
    files = [tracked.bundle.data / file for file in table.files]
    codes = [base64.b64encode(file.read_bytes()).decode() for file in files]

    def ask(address: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["predictions"]

    arguments = ["models", "serve", "-m", f"runs:/{train.info.run_id}/model", "--env-manager", "local"]
    with servers.running(arguments, tmp_path, "/ping", {"MLFLOW_TRACKING_URI": tracked.uri}) as address:
        for body in (
            {"dataframe_records": [{"image": code} for code in codes]},
            {"dataframe_split": {"columns": ["image"], "data": [[str(file)] for file in files]}},
            {"inputs": {"image": codes}},
        ):
            found = ask(address, body)
            rows = [[row[name] for name in table.class_names] for row in found]
            np.testing.assert_allclose(rows, table.probabilities, atol=1e-6)
            names = [table.class_names[index] for index in table.probabilities.argmax(1)]
            assert [row["prediction"] for row in found] == names
        broken = base64.b64encode(files[0].read_bytes()[:100]).decode()
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(address, {"dataframe_records": [{"image": codes[0]}, {"image": broken}]})
        assert caught.value.code == 400
        message = json.loads(caught.value.read())["message"]
        assert "image 1: the file given as base64 code" in message
        assert "Traceback" not in message
