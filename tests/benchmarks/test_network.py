"""The network benchmark: every contestant runs, the released flow computes the same, ratios are to DenseNet121."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from medmamba_monai.benchmarks import network
from medmamba_monai.benchmarks.machine import read_rows
from medmamba_monai.errors import BackendError
from medmamba_monai.networks import MedMamba
from medmamba_monai.ops.selective_scan import dispatch
from tests.benchmarks.parity import refused_table, spoil_backward, spoil_optimized, spoil_released_flow


def test_released_flow_computes_the_same() -> None:
    plain = MedMamba(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), num_classes=2).eval()
    slow = MedMamba(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), num_classes=2).eval()
    slow.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 40, 36)
    assert torch.allclose(network.with_released_flow(slow)(image), plain(image), rtol=1e-4, atol=1e-5)


def test_a_wrong_optimized_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = MedMamba(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), num_classes=2).eval()
    network.check_optimized(plain)
    wrong = plain.optimize_for_inference()
    wrong.stages[0].blocks[0].conv_branch = torch.nn.Identity()
    monkeypatch.setattr(plain, "optimize_for_inference", lambda: wrong)
    with pytest.raises(BackendError, match="no speed is reported"):
        network.check_optimized(plain)


def check_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str) -> None:
    """Nothing is printed, and the table of an earlier run stays."""
    out = refused_table(tmp_path)
    arguments = argparse.Namespace(preset="nano", size=64, threads=1, train_batch=2, seconds=0.0, out=out)
    with pytest.raises(BackendError, match=reason):
        network.run(arguments)
    assert out.read_text(encoding="utf-8") == "of an earlier run"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("scan", ["portable", "chosen", "released flow"])
def test_no_speed_while_a_scan_is_wrong(
    scan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if scan == "released flow":
        spoil_released_flow(monkeypatch)
    else:
        spoil_backward(dispatch.load(dispatch.resolve("cpu") if scan == "chosen" else scan), monkeypatch)
    check_refusal(tmp_path, capsys, "no speed is reported")


def test_no_speed_while_the_optimized_network_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil_optimized(monkeypatch)
    check_refusal(tmp_path, capsys, "the optimized network differs .* no speed is reported")


@pytest.mark.slow
def test_table_has_inference_and_training(tmp_path: Path) -> None:
    out = tmp_path / "network.csv"
    network.run(argparse.Namespace(preset="nano", size=64, threads=1, train_batch=2, seconds=0.0, out=out))
    rows = read_rows(out)
    assert {row["task"] for row in rows} == {"inference, batch 1", "training step, batch 2"}
    assert {row["times_densenet121"] for row in rows if row["network"] == "MONAI DenseNet121"} == {"1.000"}
    assert sum("released flow" in row["network"] for row in rows) == 1
