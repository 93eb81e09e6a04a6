"""The doctor names every backend and notices when none is left."""

from __future__ import annotations

import pytest
import torch

from medmamba_monai import cli, doctor
from medmamba_monai.errors import BackendError
from medmamba_monai.ops.selective_scan import cpu, dispatch


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
        assert "C library: uses portable, of " in doctor.report()[0]
        monkeypatch.setenv(cpu.SIMD_VARIABLE, "sse9")
        assert "'sse9' is not among the instruction sets" in doctor.report()[0]
    monkeypatch.setattr(cpu, "unavailable", lambda device: "its C library is not built")
    assert "C library: its C library is not built" in doctor.report()[0]


def test_the_variable_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "portable")
    assert "MEDMAMBA_SCAN_BACKEND=portable" in doctor.report()[0]
