"""A release as a folder: what it holds, its lock, and what must be stated for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from medmamba_monai.bundling import release as module
from medmamba_monai.bundling.merge import read_json
from medmamba_monai.bundling.release import Release, assemble, check_version, lock_differences
from medmamba_monai.bundling.source import release_files, sha256_of
from medmamba_monai.errors import CheckpointError, ConfigError


@pytest.fixture
def target(bundle: Path, tmp_path: Path) -> Path:
    return tmp_path / "staged" / bundle.name


def metadata(target: Path) -> dict[str, Any]:
    return read_json(target / "configs" / "metadata.json")


def test_a_plain_release_is_the_bundle_and_its_lock(bundle: Path, target: Path) -> None:
    digests = assemble(bundle, target, Release())
    assert list(digests) == release_files(bundle)
    assert all(sha256_of(bundle / path) == digest for path, digest in digests.items())
    lock = json.loads((target / "lock.json").read_text())
    assert lock["files"] == digests
    assert (lock["name"], lock["version"]) == (bundle.name, metadata(bundle)["version"])
    assert lock_differences(target) == []


def test_the_lock_tells_what_was_done_to_a_release(bundle: Path, target: Path) -> None:
    assemble(bundle, target, Release())
    (target / "configs" / "train.json").write_text("{}")
    (target / "docs" / "data_license.txt").unlink()
    (target / "scripts").mkdir()
    (target / "scripts" / "evil.py").write_text("")
    (target / "eval").mkdir()
    (target / "eval" / "metrics.json").write_text("{}")  # of a run; none of the release's business
    assert lock_differences(target) == [
        "docs/data_license.txt is missing",
        "scripts/evil.py is not in lock.json",
        "configs/train.json was changed",
    ]


def test_a_release_with_weights_says_what_they_measured(bundle: Path, weights: Path, target: Path) -> None:
    digests = assemble(bundle, target, Release(weights=weights))
    assert {"models/model.pt", "models/model.json"} <= set(digests)
    assert "large_files.yml" not in digests
    assert metadata(target)["eval_metrics"]["accuracy"] == 0.75
    assert metadata(bundle)["eval_metrics"] == {}
    assert not (bundle / "models").exists()


def test_scores_may_lie_beside_the_weights_or_anywhere(bundle: Path, weights: Path, target: Path) -> None:
    metrics = weights.parents[1] / "eval" / "metrics.json"
    beside = metrics.rename(weights.with_name("metrics.json"))
    assemble(bundle, target, Release(weights=weights))
    elsewhere = beside.rename(weights.parents[1] / "scores.json")
    with pytest.raises(ConfigError, match="--metrics"):
        assemble(bundle, target.with_name("b"), Release(weights=weights))
    assemble(bundle, target.with_name("c"), Release(weights=weights, metrics=elsewhere))


def test_large_weights_are_listed_as_monai_reads_it(
    bundle: Path, weights: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai.apps.utils import HashCheckError
    from monai.bundle import download_large_files

    monkeypatch.setattr(module, "LARGE", 1_000_000)
    assemble(bundle, target, Release(weights=weights, weights_url="https://host/model.pt"))
    listed = target / "large_files.yml"
    listed.write_text(listed.read_text().replace("https://host/model.pt", weights.as_uri()))
    model, whole = target / "models" / "model.pt", weights.read_bytes()
    download_large_files(bundle_path=str(target))  # in place: its digest is proved
    model.write_bytes(whole[:-1] + b"x")
    with pytest.raises(HashCheckError):
        download_large_files(bundle_path=str(target))
    model.unlink()
    download_large_files(bundle_path=str(target))
    assert model.read_bytes() == whole

    assemble(bundle, target.with_name("no address"), Release(weights=weights))
    download_large_files(bundle_path=str(target.with_name("no address")))


def test_the_package_goes_along_and_is_required_no_more(bundle: Path, target: Path) -> None:
    digests = assemble(bundle, target, Release(vendor=True))
    assert "medmamba_monai/networks/medmamba.py" in digests
    required = metadata(target)["required_packages_version"]
    assert "medmamba_monai" not in required
    assert {"nibabel", "tqdm", "fire"} <= set(required)
    assert "run from inside the folder" in (target / "docs" / "README.md").read_text()
    stated = metadata(bundle)["required_packages_version"]
    assert all(required[name] == version for name, version in stated.items() if name != "medmamba_monai")


def test_a_new_version_gets_its_entry(bundle: Path, target: Path) -> None:
    assemble(bundle, target, Release(version="0.2.0", change="trained on BUSI"))
    assert metadata(target)["version"] == "0.2.0"
    assert next(iter(metadata(target)["changelog"].items())) == ("0.2.0", "trained on BUSI")
    assert "0.1.0" in metadata(target)["changelog"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"version": "0.2.0"}, "--change"),
        ({"change": "more"}, "--version"),
        ({"data_source": "ours"}, "--data_license"),
        ({"weights_url": "https://x"}, "--weights"),
        ({"metrics": Path("metrics.json")}, "--weights"),
        ({"version": "new", "change": "more"}, "numbers and dots"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], reason: str, bundle: Path, target: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        assemble(bundle, target, Release(**options))


def test_other_data_bring_their_licence(bundle: Path, weights: Path, target: Path, tmp_path: Path) -> None:
    conditions = tmp_path / "conditions.txt"
    options = Release(weights=weights, data_source="Our clinic", data_license=conditions)
    with pytest.raises(ConfigError, match="conditions.txt"):
        assemble(bundle, target, options)
    conditions.write_text("For research within the clinic only.")
    assemble(bundle, target, options)
    assert "within the clinic" in (target / "docs" / "data_license.txt").read_text()


def test_paths_of_one_machine_are_refused_in_configs_and_in_model_json(
    bundle: Path, weights: Path, target: Path
) -> None:
    info = json.loads((weights.parent / "model.json").read_text())
    info["extra"]["dataset_dir"] = "/exotic/clinic/images"
    (weights.parent / "model.json").write_text(json.dumps(info))
    with pytest.raises(ConfigError, match="models/model.json names /exotic/clinic/images"):
        assemble(bundle, target, Release(weights=weights))
    config = bundle / "configs" / "train.json"
    config.write_text(config.read_text().replace("\"$@bundle_root + '/data'\"", f'"{bundle.parent}/images"'))
    with pytest.raises(ConfigError, match="configs/train.json"):
        assemble(bundle, target.with_name("b"), Release())


def test_what_a_release_needs_is_asked_for(bundle: Path, target: Path, weights: Path) -> None:
    torch.save({}, weights)
    with pytest.raises(CheckpointError):
        assemble(bundle, target, Release(weights=weights))
    (bundle / "LICENSE").unlink()
    with pytest.raises(ConfigError, match="LICENSE"):
        assemble(bundle, target.with_name("b"), Release())


def test_a_bundle_has_the_name_of_its_folder(bundle: Path, target: Path) -> None:
    renamed = bundle.rename(bundle.with_name("mine"))
    with pytest.raises(ConfigError, match="'mine'"):
        assemble(renamed, target, Release())


@pytest.mark.parametrize(
    "broken", [{}, {"version": "0.1.0"}, {"version": "0.1.0", "changelog": {"0.0.9": "x"}}, {"version": 1}]
)
def test_the_version_stands_in_the_changelog(broken: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="metadata"):
        check_version(broken, "metadata")
    assert check_version({"version": "1.2", "changelog": {"1.2": "x"}}, "metadata") == "1.2"
