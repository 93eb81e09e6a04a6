"""The GPU rows of the benchmarks: said to be not measured where they are not, and measured by code that runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medmamba_monai.benchmarks import gpu, released_flow
from medmamba_monai.benchmarks.machine import read_rows
from medmamba_monai.errors import BackendError
from medmamba_monai.ops import directional_scan
from medmamba_monai.ops.selective_scan import dispatch, reference
from medmamba_monai.ops.selective_scan.contract import SequenceInputs

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def test_without_a_gpu_nothing_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "gpu.csv"
    for benchmark in ("network", "scan", "network"):
        gpu.report(benchmark, path, 0.0)
    rows = read_rows(path)
    assert [(row["benchmark"], row["quantity"]) for row in rows] == list(gpu.TARGETS)
    assert {row["measured"] for row in rows} == {gpu.NOT_MEASURED}
    assert {row["baseline"] + row["ours"] for row in rows} == {""}
    assert "not measured, no CUDA device here" in capsys.readouterr().out


def test_without_the_baseline_nothing_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dispatch, "unavailable", lambda name, device: "no kernel" if name == "mamba_ssm" else None)
    monkeypatch.setattr(gpu, "describe", dict)
    gpu.report("scan", tmp_path / "gpu.csv", 0.0)
    assert "backend 'mamba_ssm' cannot run: no kernel" in capsys.readouterr().out


def test_measured_rows_are_kept_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gpu.csv"
    monkeypatch.setattr(gpu, "_unmeasurable", lambda: None)
    quantity = "directional scan, forward, batch 64"
    found = {quantity: gpu.Measurement("6.10 x", "12.2 ms", "2.0 ms")}
    monkeypatch.setattr(gpu, "measure_scan", lambda device, kernel, seconds: found)
    monkeypatch.setattr(gpu, "measure_network", lambda device, kernel, seconds: {})
    gpu.report("scan", path, 0.0)
    gpu.report("network", path, 0.0)
    assert {row["quantity"]: row["measured"] for row in read_rows(path) if row["ours"]} == {quantity: "6.10 x"}


def test_the_page_shows_the_table() -> None:
    rows = read_rows(ROOT / "docs" / "benchmarks" / "gpu.csv")
    assert [(row["benchmark"], row["quantity"], row["target"]) for row in rows] == [
        (*key, target) for key, target in gpu.TARGETS.items()
    ]
    assert gpu.table(rows) in (ROOT / "docs" / "benchmarks" / "README.md").read_text(encoding="utf-8")


def test_scan_is_measured_on_any_device() -> None:
    measured = gpu.measure_scan(CPU, reference.sequence_scan, 0.0, stages=((4, 8, 1), (3, 16, 2)), batch=2)
    assert list(measured) == [quantity for name, quantity in gpu.TARGETS if name == "scan"][:2]  # a roofline is a GPU's
    for entry in measured.values():
        ratio, baseline, ours = (float(text.split()[0]) for text in entry)
        assert ratio == pytest.approx(baseline / ours, abs=0.02 * ratio + 0.01)


def test_a_wrong_scan_is_not_timed() -> None:
    def wrong(inputs: SequenceInputs) -> tuple[torch.Tensor, torch.Tensor]:
        y, last = reference.sequence_scan(inputs)
        return y * 1.001, last

    with pytest.raises(BackendError, match="no speed is reported"):
        gpu.measure_scan(CPU, wrong, 0.0, stages=((3, 8, 1),), batch=1)


def wrong_gradient(inputs: SequenceInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """The right output, with a gradient two percent too large."""
    y, last = reference.sequence_scan(inputs)
    return y + 0.02 * (y - y.detach()), last


@pytest.fixture
def nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(*arguments: object, **options: object) -> None:
        raise AssertionError("timed before the results were compared")

    monkeypatch.setattr(gpu, "measure_together", timed)


@pytest.mark.usefixtures("nothing_is_timed")
def test_a_scan_with_wrong_gradients_is_not_timed() -> None:
    with pytest.raises(BackendError, match="gradients differ from the released flow's by 2.* no speed is reported"):
        gpu.measure_scan(CPU, wrong_gradient, 0.0, stages=((3, 8, 1),), batch=1)


@pytest.mark.usefixtures("nothing_is_timed")
def test_a_scan_that_gives_a_pixel_the_gradient_of_another_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right output, and right gradients if all pixels weigh the same; see ``_scan_gradients``."""

    def swapped(*inputs: torch.Tensor, strides: object) -> torch.Tensor:
        y = directional_scan(*inputs, strides=strides)
        return y.detach() + y.flip(1) - y.flip(1).detach()

    monkeypatch.setattr(gpu, "directional_scan", swapped)
    with pytest.raises(BackendError, match="gradients differ"):
        gpu.measure_scan(CPU, reference.sequence_scan, 0.0, stages=((3, 8, 1),), batch=1)


@pytest.mark.usefixtures("nothing_is_timed")
@pytest.mark.parametrize(("kernel", "what"), [(wrong_gradient, "gradients"), (None, "logits")])
def test_a_wrong_network_is_not_timed(kernel: released_flow.Kernel | None, what: str) -> None:
    def wrong(inputs: SequenceInputs) -> tuple[torch.Tensor, torch.Tensor]:
        y, last = reference.sequence_scan(inputs)
        return y.flip(1), last

    with pytest.raises(BackendError, match=f"{what} differ .* no speed is reported"):
        gpu.measure_network(CPU, kernel or wrong, 0.0, preset="nano", size=32, batch=2)


@pytest.mark.slow
def test_network_is_measured_on_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "RIVALS", gpu.RIVALS[:1])
    measured = gpu.measure_network(CPU, reference.sequence_scan, 0.0, preset="nano", size=32, batch=2)
    wanted = {quantity for name, quantity in gpu.TARGETS if name == "network"}
    left_out = {quantity for quantity in wanted if any(word in quantity for word in ("memory", "ResNet50", "ViT"))}
    assert wanted - set(measured) == left_out
    assert set(measured) <= wanted


def test_peak_of_exponentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """132 multiprocessors at 1.98 GHz: 4.18e12 a second."""
    from types import SimpleNamespace

    properties = SimpleNamespace(multi_processor_count=132, clock_rate=1_980_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert gpu._exponentials_per_ms(torch.device("cuda")) * 1e3 == pytest.approx(4.18e12, rel=1e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    cuda = torch.device("cuda")
    assert len(gpu.measure_scan(cuda, reference.sequence_scan, 0.0, stages=((7, 64, 2),), batch=2)) == 3
    assert len(gpu.measure_network(cuda, reference.sequence_scan, 0.0, preset="nano", size=64, batch=2)) == 14
