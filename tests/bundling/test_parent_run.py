"""The run that others are shown under: begun once, gone on with, never in the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from medmamba_monai.bundling.parent_run import ParentRun
from medmamba_monai.handlers import default_tracking_uri


def test_one_run_through_several_commands(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path / "my runs")
    (tmp_path / "my runs").mkdir()
    first = ParentRun(tmp_path / "my runs", uri, "trials", "5 folds", {"folds": 5, "long": "x" * 9000})
    first.begin()
    assert first.run_id is not None
    assert first.child_options("fold 1") == {
        "mlflow": True, "experiment_name": "trials", "run_name": "fold 1", "parent_run_id": first.run_id,
    }  # fmt: skip
    first.finish("KILLED")
    client = MlflowClient(uri)
    assert client.get_run(first.run_id).info.status == "KILLED"

    again = ParentRun(tmp_path / "my runs", uri, "trials", "5 folds")
    again.begin()
    assert again.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"
    (tmp_path / "a.txt").write_text("x")
    again.log({"auc": 0.5, "f1": None}, {"best": 3})
    again.finish("FINISHED", [tmp_path / "a.txt", tmp_path / "none.txt"])
    run = client.get_run(first.run_id)
    assert (run.info.status, run.info.run_name, run.data.params["folds"]) == ("FINISHED", "5 folds", "5")
    assert run.data.metrics == {"auc": 0.5}
    assert run.data.tags["best"] == "3"
    assert [item.path for item in client.list_artifacts(first.run_id)] == ["a.txt"]

    kept = tmp_path / "my runs" / "parent_run.json"
    assert "sqlite" not in kept.read_text()  # an address may hold a password
    kept.write_text(kept.read_text().replace('"store": "', '"store": "0'))
    other = ParentRun(tmp_path / "my runs", uri, "trials", "of another store")
    other.begin()
    assert other.run_id not in (None, first.run_id)


def test_without_tracking_and_without_an_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    off = ParentRun(tmp_path, None, "trials", "x")
    off.begin()
    off.log({"auc": 0.5})
    off.finish("FINISHED")
    assert off.child_options("fold 1") == {"mlflow": False}
    (tmp_path / "file").write_text("")
    broken = ParentRun(tmp_path, f"sqlite:///{tmp_path}/file/mlruns.db", "trials", "x")
    broken.begin()
    broken.finish("FINISHED")
    assert broken.child_options("fold 1")["parent_run_id"] is None
    assert "failed" in caplog.text


def test_a_store_that_does_not_know_the_run_gets_a_new_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = default_tracking_uri(tmp_path)
    first = ParentRun(tmp_path, uri, "trials", "5 folds")
    first.begin()
    first.finish("KILLED")
    kept = tmp_path / "parent_run.json"
    kept.write_text(kept.read_text().replace(str(first.run_id), "0" * 32))  # as if mlruns.db had been removed
    again = ParentRun(tmp_path, uri, "trials", "5 folds")
    again.begin()
    assert again.run_id not in (None, first.run_id)
    assert MlflowClient(uri).get_run(again.run_id).info.status == "RUNNING"
    assert "failed" not in caplog.text


def test_an_address_from_the_environment_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_tracking_uri(tmp_path / "elsewhere"))
    parent = ParentRun(tmp_path, default_tracking_uri(tmp_path), "trials", "5 folds")
    parent.begin()
    assert parent.run_id is not None
    assert (tmp_path / "elsewhere" / "mlruns.db").exists()


def test_nested_keys_are_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = default_tracking_uri(tmp_path)
    parent = ParentRun(tmp_path, uri, "trials", "x", {"train#trainer#decollate": False, "epochs": 3})
    parent.begin()
    parent.log({"val_a#b": 0.5}, {"best.network_def#drop_path_rate": 0.1})
    parent.finish("FINISHED")
    data = MlflowClient(uri).get_run(str(parent.run_id)).data
    assert data.params == {"train_trainer_decollate": "False", "epochs": "3"}
    assert data.metrics == {"val_a_b": 0.5}
    assert data.tags["best.network_def_drop_path_rate"] == "0.1"
    assert "failed" not in caplog.text


def test_a_run_that_was_deleted_is_not_gone_on_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = default_tracking_uri(tmp_path)
    first = ParentRun(tmp_path, uri, "trials", "x")
    first.begin()
    MlflowClient(uri).delete_run(str(first.run_id))
    again = ParentRun(tmp_path, uri, "trials", "x")
    again.begin()
    assert again.run_id not in (None, first.run_id)
    assert "failed" not in caplog.text
