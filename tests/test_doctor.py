"""The doctor names every backend and notices when none is left."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai import cli, doctor
from medmamba_monai.errors import BackendError
from medmamba_monai.ops.selective_scan import cpu, dispatch, triton


def test_report_names_versions_devices_and_backends(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for text in ("torch", "monai", "Scan backends on cpu:", *dispatch.BACKENDS):
        assert text in printed


def test_a_machine_without_a_backend_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(device: str) -> str:
        raise BackendError("no scan backend runs on cpu")

    monkeypatch.setattr(doctor, "explain", nothing)
    text, healthy = doctor.report()
    assert not healthy
    assert "no scan backend runs on cpu" in text


def test_the_instruction_set_in_use_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    if cpu.unavailable(torch.device("cpu")) is None:
        monkeypatch.setenv(cpu.SIMD_VARIABLE, "portable")
        assert f"C library: uses portable, of {', '.join(cpu.variants())}" in doctor.report()[0]
        monkeypatch.setenv(cpu.SIMD_VARIABLE, "sse9")
        assert "'sse9' is not among the instruction sets" in doctor.report()[0]
    monkeypatch.setattr(cpu, "unavailable", lambda device: "its C library is not built")
    assert "C library: its C library is not built" in doctor.report()[0]


@pytest.mark.parametrize(
    ("built", "runs", "line"),
    [
        (("avx512", "avx2", "portable"), ("avx2", "portable"), "avx2, of avx2, portable (avx512: built, not supported"),
        (("avx512", "avx2", "portable"), ("portable",), "portable, of portable (avx512, avx2: built, not supported"),
        (("avx2", "portable"), ("avx2", "portable"), "avx2, of avx2, portable; MEDMAMBA_SCAN_SIMD names another"),
    ],
)
def test_instruction_sets_that_do_not_run_here_are_told_apart(
    built: tuple[str, ...], runs: tuple[str, ...], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cpu.SIMD_VARIABLE, raising=False)
    monkeypatch.setattr(cpu, "unavailable", lambda device: None)
    monkeypatch.setattr(cpu, "built", lambda: built)
    monkeypatch.setattr(cpu, "variants", lambda: runs)
    monkeypatch.setattr(doctor, "explain", lambda device: "")
    assert f"C library: uses {line}" in doctor.report()[0]


def test_every_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def explain(device: str) -> str:
        asked.append(device)
        return f"backends of {device}"

    monkeypatch.setattr(doctor, "explain", explain)
    for module, names in ((torch.cuda, ["NVIDIA H200", "AMD Instinct"]), (torch.xpu, ["Arc"])):
        monkeypatch.setattr(module, "is_available", lambda: True)
        monkeypatch.setattr(module, "device_count", lambda names=names: len(names))
        monkeypatch.setattr(module, "get_device_name", lambda number, names=names: names[number])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M4")
    text, healthy = doctor.report()
    assert healthy
    assert asked == ["cpu", "cuda", "xpu", "mps"]
    for line in ("on cpu:", "on cuda, NVIDIA H200, AMD Instinct:", "on xpu, Arc:", "on mps, Apple M4:"):
        assert f"Scan backends {line}" in text
    assert "  backends of xpu" in text


def test_a_device_that_is_not_there_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (torch.cuda, torch.xpu, torch.backends.mps):
        monkeypatch.setattr(module, "is_available", lambda: False)
    assert doctor._devices() == {"cpu": []}


def test_the_backends_of_an_xpu_are_those_that_claim_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intel GPUs have the portable path and, with triton, its kernels; never the C library."""
    dispatch.unavailable.cache_clear()
    monkeypatch.setattr(triton, "unavailable", lambda device: "the package triton is not installed")
    try:
        text = dispatch.explain("xpu")
    finally:
        dispatch.unavailable.cache_clear()
        dispatch._first_usable.cache_clear()
    assert "plain PyTorch, any device: chosen" in text
    assert "not available: it runs on CPUs, not on xpu" in text
    assert "not available: the package triton is not installed" in text


def test_the_variable_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "portable")
    assert "MEDMAMBA_SCAN_BACKEND=portable" in doctor.report()[0]
