"""Which bundle a name means, and that nothing but a release's own files ever leaves the folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from medmamba_monai.bundling.source import (
    all_bundles,
    copy_release,
    find_bundle,
    left_out,
    release_files,
    sha256_of,
)
from medmamba_monai.errors import ConfigError

EXPECTED = [
    "LICENSE",
    *(f"configs/{name}.json" for name in ("dataset_breastmnist", "dataset_cervical_us", "dataset_fetal_planes_db")),
    *(f"configs/{name}.json" for name in ("evaluate", "inference")),
    *("configs/logging.conf", "configs/metadata.json", "configs/multi_gpu_train.json", "configs/train.json"),
    *("docs/README.md", "docs/data_license.txt"),
]
PRIVATE = (
    *("eval/predictions.csv", "models/model.pt", "models/checkpoint.pt", "data/benign/ann_miller.png", "mlruns.db"),
    *("configs/notes.xlsx", "configs/.secret.json", "docs/.DS_Store", "scripts/__pycache__/net.cpython-311.pyc"),
    *("LICENSE.bak", "LICENSE.d/x", "images.zip", "configs/patients.csv", ".git/config", "labels.csv"),
)


def test_bundles_are_found_by_name_and_by_folder(
    repository: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = bundle.name
    assert find_bundle(name, repository) == repository / "bundles" / name
    monkeypatch.chdir(repository / "docs")
    assert find_bundle(name) == repository / "bundles" / name
    assert find_bundle(str(bundle)) == bundle
    assert [path.name for path in all_bundles()] == sorted(path.name for path in (repository / "bundles").iterdir())


@pytest.mark.parametrize("name", ["breast_ultrasound", "no/such/folder", ""])
def test_an_unknown_bundle_is_named_with_those_there_are(name: str, repository: Path) -> None:
    with pytest.raises(ConfigError, match="breast_ultrasound_classification"):
        find_bundle(name, repository)


def test_a_repository_without_bundles_is_said_to_have_none(clone: Path) -> None:
    with pytest.raises(ConfigError, match="bundle build"):
        all_bundles(clone)


def test_nothing_private_is_released(bundle: Path, tmp_path: Path) -> None:
    assert release_files(bundle) == EXPECTED
    assert left_out(bundle, EXPECTED) == []
    for path in PRIVATE:
        (bundle / path).parent.mkdir(parents=True, exist_ok=True)
        (bundle / path).write_text("x")
    (bundle / "docs" / "link.md").symlink_to(tmp_path / "elsewhere.md")
    (tmp_path / "elsewhere.md").write_text("x")
    assert release_files(bundle) == EXPECTED
    expected = {"eval", "models", "data", "mlruns.db", "LICENSE.bak", "images.zip", "labels.csv", "configs"}
    assert expected <= set(left_out(bundle, EXPECTED))
    copy_release(bundle, tmp_path / "copy", ["models/model.pt", "models/model.ts"])
    copied = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*.*")}
    assert {path for path in copied if path.startswith("models/")} == {"models/model.pt"}
    assert not copied & (set(PRIVATE) - {"models/model.pt"})


def test_code_a_bundle_brings_along_is_released(bundle: Path) -> None:
    for path in ("scripts/net.py", "medmamba_monai/__init__.py", "docs/figure.png"):
        (bundle / path).parent.mkdir(exist_ok=True)
        (bundle / path).write_bytes(b"")
    assert {"scripts/net.py", "medmamba_monai/__init__.py", "docs/figure.png"} <= set(release_files(bundle))


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
