"""MONAI's federated client on the bundles as they are: two hospitals, two rounds, evaluation of the global network."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from medmamba_monai.bundling.reporting import root_cause
from medmamba_monai.errors import CheckpointError

from .conftest import SMALL, BundleCopy, copy_bundle

CLASSES = ["benign", "malignant", "normal"]


def client(bundle: BundleCopy, **options: Any) -> Any:
    """A client as an FL system makes one: the bundle's folder and overrides for both of its workflows."""
    from monai.fl.client import MonaiAlgo

    given = {
        **SMALL,
        "bundle_root": str(bundle.root),
        "dataset_dir": str(bundle.data),
        "class_names": CLASSES,
        "mlflow": False,
    }
    algo = MonaiAlgo(bundle_root=str(bundle.root), train_kwargs=dict(given), eval_kwargs=dict(given), **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="executing the bundle config")
        algo.initialize(extra={})
    return algo


def test_two_hospitals_train_one_network(tmp_path: Path) -> None:
    from monai.fl.utils.constants import ExtraItems, ModelType, WeightType
    from monai.fl.utils.exchange_object import ExchangeObject

    bundles = [copy_bundle("breast_ultrasound_classification", tmp_path / name) for name in ("a", "b")]
    clients = [client(bundle) for bundle in bundles]
    weights = {name: value.detach().clone() for name, value in clients[0].trainer.network.state_dict().items()}
    for round_number in (1, 2):
        changes = []
        for algo in clients:
            algo.train(ExchangeObject(weights=weights))
            assert algo.trainer.state.epoch == round_number
            sent = algo.get_weights()
            assert sent.weight_type == WeightType.WEIGHT_DIFF
            assert sorted(sent.weights) == sorted(weights)
            changes.append(sent.weights)
        assert any(bool(change.any()) for change in changes[0].values())
        weights = {
            name: (value + sum(change[name].float() for change in changes) / len(changes)).to(value.dtype)
            for name, value in weights.items()
        }
        for algo in clients:
            metrics = algo.evaluate(ExchangeObject(weights=weights)).metrics
            assert 0 <= metrics["test_balanced_accuracy"] <= 1
            own = algo.evaluator.network.state_dict()
            assert all(torch.equal(own[name], value) for name, value in weights.items())
    best = clients[0].get_weights(extra={ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL})
    assert sorted(best.weights) == sorted(weights)
    for algo in clients:
        algo.finalize()
    info = json.loads((bundles[0].root / "models" / "model.json").read_text())
    assert info["class_names"] == CLASSES
    bundles[0].run("inference")


def test_rounds_are_scored_on_validation_images_when_told_so(tmp_path: Path) -> None:
    from monai.fl.utils.exchange_object import ExchangeObject

    bundle = copy_bundle("breast_ultrasound_classification", tmp_path)
    algo = client(bundle, config_evaluate_filename="configs/train.json")
    metrics = algo.evaluate(ExchangeObject(weights=dict(algo.trainer.network.state_dict()))).metrics
    assert "val_balanced_accuracy" in metrics


def test_without_a_federation_an_untrained_network_is_not_evaluated(fresh: BundleCopy) -> None:
    with pytest.raises((RuntimeError, CheckpointError)) as caught:
        fresh.run("evaluate")
    assert "model.json" in str(root_cause(caught.value))
