"""The command line: exit codes, messages without a stack trace, verbs that load only what they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import medmamba_monai
from medmamba_monai import cli
from medmamba_monai.errors import BackendError, CheckpointError, ConfigError, DataError


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("x"), 2), (BackendError("x"), 2), (DataError("x"), 3), (CheckpointError("x"), 3)],
)
def test_an_error_becomes_its_message_and_an_exit_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: object) -> int:
        raise error

    module = ModuleType("failing_verb")
    module.add_arguments = lambda parser: None  # type: ignore[attr-defined]
    module.run = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "failing_verb", module)
    monkeypatch.setitem(cli.VERBS, "fail", cli.Verb("failing_verb", "fails"))
    assert cli.main(["fail"]) == code
    assert capsys.readouterr().err == "x\n"


def test_an_unknown_verb_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["bundel"])
    assert caught.value.code == 2
    assert "bundle" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"medmamba_monai {medmamba_monai.__version__}\n"


def test_a_missing_repository_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", "build", "--root", str(tmp_path)]) == 2
    assert "configs/base" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["build", "verify", "pack", "publish"])
def test_every_action_of_bundle_explains_itself(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["bundle", action, "--help"])
    assert caught.value.code == 0
    assert "--root" in capsys.readouterr().out


def test_packing_tells_what_went_in_and_what_did_not(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "eval").mkdir()
    (bundle / "eval" / "metrics.json").write_text("{}")
    assert cli.main(["bundle", "pack", str(bundle), "--output", str(tmp_path / "out"), "--vendor"]) == 0
    told = capsys.readouterr().out
    (written,) = (tmp_path / "out").iterdir()
    assert f"wrote {written}" in told
    assert "  configs/train.json\n" in told
    assert "left out: eval\n" in told
    assert "medmamba_monai/networks" not in told
    assert cli.main(["bundle", "pack", str(bundle), "--output", str(tmp_path), "--version", "2.0"]) == 2
    assert "--change" in capsys.readouterr().err


def test_every_verb_names_a_module_that_exists() -> None:
    import importlib

    for verb in cli.VERBS.values():
        module = importlib.import_module(verb.module)
        assert callable(module.add_arguments)
        assert callable(module.run)


def test_building_bundles_loads_neither_monai_nor_mlflow(repository: Path) -> None:
    code = (
        "import sys; from medmamba_monai.cli import main; code = main(['bundle', 'build', '--check']);"
        "print(sorted({'monai', 'mlflow', 'ignite'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
