"""Paths of one machine are found, in whatever system's form; addresses and expressions of configs are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmamba_monai.bundling.privacy import personal_paths, refuse_personal_paths
from medmamba_monai.errors import ConfigError


@pytest.mark.parametrize(
    "path",
    [
        *("/home/ann/images", "/Users/ann/images", "/root/x", "/mnt/share/x.png", "/data/busi/benign", "~/images"),
        *("~ann/images", "C:\\Users\\ann\\x", "D:/images", "file:///scratch/x", "/workspace/data/x", "/tmp/x"),
        *("/lustre/group/x", "/Volumes/disk/x"),
    ],
)
def test_paths_are_found_anywhere_in_a_text(path: str) -> None:
    for text in (path, f"trained on {path}, then", f'"dataset_dir": "{path}"', f"$'{path}' + x", f"--data={path}"):
        assert personal_paths(text), text


@pytest.mark.parametrize("path", ["/exotic/place", "/exotic/place/x.json", "\\\\server\\share\\x"])
def test_a_value_that_is_an_absolute_path_is_found_wherever_it_leads(path: str) -> None:
    assert personal_paths(json.dumps({"a": [{"b": path}]}), is_json=True)


@pytest.mark.parametrize(
    "text",
    [
        *("https://data.mendeley.com/data/x", "https://host/home/ann/x", "$@bundle_root + '/data'", "sqlite:///x.db"),
        *("$@output_dir + '/tmp/x.json'", "a/data/b", "./data/x", "kg/m", "and/or", "http://a/~b/c", "1/2", "x ~ y"),
        *("docs/home/x", "@bundle_root/data/x", "ratio 3:/4", "/models", "key: value"),
    ],
)
def test_what_only_resembles_a_path_is_left_alone(text: str) -> None:
    assert personal_paths(json.dumps(text), is_json=True) == []


def test_every_bundle_is_free_of_them(repository: Path) -> None:
    from medmamba_monai.bundling.source import all_bundles, release_files

    for folder in all_bundles(repository):
        refuse_personal_paths(folder, release_files(folder), own=[str(repository)])


@pytest.mark.parametrize("file", ["configs/train.json", "docs/README.md", "LICENSE", "configs/logging.conf"])
def test_a_planted_path_is_refused_with_its_file(file: str, bundle: Path) -> None:
    text = (bundle / file).read_text()
    planted = text.replace("{", '{"x": "/home/ann/busi", ', 1) if file.endswith(".json") else f"{text}\n/home/ann/busi"
    (bundle / file).write_text(planted)
    with pytest.raises(ConfigError, match=rf"{file} names /home/ann/busi"):
        refuse_personal_paths(bundle, [file])


def test_the_home_of_whoever_packs_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/exotic/ann"))
    (bundle / "docs" / "README.md").write_text("see /exotic/ann/notes")
    with pytest.raises(ConfigError, match="/exotic/ann"):
        refuse_personal_paths(bundle, ["docs/README.md"])
    (bundle / "docs" / "README.md").write_text("see a/exotic/ann, /exotic/anneliese and /exotic")
    refuse_personal_paths(bundle, ["docs/README.md"], own=["/exotic", "/"])


def test_many_are_counted(bundle: Path) -> None:
    (bundle / "docs" / "README.md").write_text("\n".join(f"/home/ann/{i}" for i in range(9)))
    with pytest.raises(ConfigError, match="and 4 more"):
        refuse_personal_paths(bundle, ["docs/README.md"])
