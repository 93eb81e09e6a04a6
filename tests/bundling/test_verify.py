"""Verifying as a whole: every bundle passes, faults turn the exit code, the table says what happened."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from medmamba_monai import cli
from medmamba_monai.bundling.checks import CHECKS, Check
from medmamba_monai.bundling.trial import Trial
from medmamba_monai.bundling.verify import Outcome, table, verify

from .conftest import REPOSITORY


def test_a_bundle_passes_every_check(bundle: Path, repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["bundle", "verify", str(bundle), "--root", str(repository)])
    told = capfd.readouterr()
    assert code == 0, told.out
    lines = told.out.splitlines()
    assert lines[0] == bundle.name
    assert [line[2:28].rstrip() for line in lines[1:-1]] == [check.name for check in CHECKS]
    assert lines[-1] == "11 of 11 checks passed, 1 bundles, 1 with generated weights, none trained"
    assert told.err == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in (REPOSITORY / "bundles").iterdir()))
def test_every_bundle_passes(name: str, repository: Path) -> None:
    found = list(verify(repository / "bundles" / name, repository / "configs" / "schema"))
    assert len(found) == len(CHECKS)
    assert all(outcome.ok for outcome in found), "\n".join(table(found))


def test_a_fault_turns_the_exit_code_and_is_told(
    bundle: Path, repository: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle / "LICENSE").unlink()
    assert cli.main(["bundle", "verify", str(bundle), "--root", str(repository)]) == 2
    told = capfd.readouterr().out
    assert "files                     FAILED" in told
    assert "LICENSE" in told
    assert "after files failed" in told
    assert "0 of 11 checks passed" in told


def fail(error: Exception) -> Check:
    def run(trial: Trial, schemas: Path) -> str:
        logging.getLogger("monai").warning("noise")
        raise RuntimeError("outer") from error

    return Check("failing", run)


def test_the_reason_is_the_deepest_one_on_one_line(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (outcome,) = verify(bundle, Path(), [fail(KeyError("a\n  b"))])
    assert (outcome.state, outcome.detail) == ("FAILED", "KeyError: 'a\\n b'")
    (outcome,) = verify(bundle, Path(), [fail(ValueError("x" * 999))])
    assert len(outcome.detail) < 320
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_checks_that_need_a_failed_one_are_not_run(bundle: Path) -> None:
    ran: list[str] = []

    def note(trial: Trial, schemas: Path) -> str:
        ran.append("ran")
        return "x"

    checks = [fail(ValueError("x")), Check("second", note, ("failing",)), Check("third", note, ("second",))]
    found = list(verify(bundle, Path(), [*checks, Check("free", note)]))
    assert [outcome.state for outcome in found] == ["FAILED", "not run", "not run", "ok"]
    assert found[2].detail == "after second failed"
    assert ran == ["ran"]


def test_the_table_names_each_bundle_once() -> None:
    rows = [Outcome(bundle, check, "ok", "x", 0.1) for bundle in ("a", "b") for check in ("one", "two")]
    assert [line.strip().split()[0] for line in table(rows)] == ["a", "one", "two", "b", "one", "two"]


@pytest.mark.parametrize("given", [[], ["--all", "breast_ultrasound_classification"]])
def test_what_to_verify_has_to_be_said(given: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", "verify", *given, "--root", str(REPOSITORY)]) == 2
    assert "--all" in capfd.readouterr().err
