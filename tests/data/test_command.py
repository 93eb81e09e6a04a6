"""``python -m medmamba_monai data check``: what it prints and how it exits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medmamba_monai import cli
from medmamba_monai.data import build_datalist, read_image
from medmamba_monai.data.phantom import write_phantoms
from medmamba_monai.data.phantom_volume import phantom_head, write_heads, write_nifti, write_series


@pytest.fixture
def films(tmp_path: Path) -> Path:
    write_phantoms(tmp_path / "films", per_class=12, size=48)
    return tmp_path / "films"


def test_a_clean_folder(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(films), "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "24 images" in printed
    assert printed.count("training can go ahead") == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"data_report.json", "contact_sheet.png"}


def test_leaks_and_damage_are_named(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datalist = build_datalist(films)
    shutil.copy(films / datalist.training[0]["image"], films / datalist.test[0]["image"])
    (films / datalist.validation[0]["image"]).write_bytes(b"no picture")
    datalist.save(tmp_path / "list.json")
    options = ["--dataset_dir", str(films), "--output_dir", str(tmp_path / "out")]
    assert cli.main(["data", "check", str(tmp_path / "list.json"), *options]) == 3
    printed = capsys.readouterr().out
    assert "same picture in two splits: 1" in printed
    assert f"unreadable: 1\n  {datalist.validation[0]['image']}" in printed
    assert "training should not go ahead" in printed


def test_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads = write_heads(tmp_path / "heads", 9)
    command = ["data", "check", str(heads), "--volumes", "--output_dir", str(tmp_path / "out")]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "18 images" in printed
    assert "odd" not in printed
    report = json.loads((tmp_path / "out" / "data_report.json").read_text())
    assert report["formats"] == {"nifti": 12, "dicom": 6}
    assert report["sizes"]["smallest"] == report["sizes"]["largest"] == [44, 36, 40]

    # one head as a series in one split and as a file in the other, a slice, and a series in time
    datalist = build_datalist(heads, dicom_series=True)
    copied, target = datalist.training[0]["image"], datalist.test[0]["image"]
    image = read_image(heads / copied, spatial_dims=3, scale=None)
    place = heads / target
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    if place.suffix:
        write_nifti(place, image.array[0].astype(np.int16), image.meta["affine"], "LPS")
    else:
        write_series(place, image.array[0].astype(np.int16), image.meta["affine"])
    volume, affine = phantom_head("narrow", 50)
    write_nifti(heads / "narrow" / "slice.nii", volume[..., :1], affine)
    nibabel.save(nibabel.Nifti1Image(np.stack([volume] * 3, -1), affine), heads / "narrow" / "time.nii")
    datalist.training += [{"image": f"narrow/{name}.nii", "label": 0} for name in ("slice", "time")]
    datalist.save(tmp_path / "list.json")
    command = ["data", "check", str(tmp_path / "list.json"), "--dataset_dir", str(heads), *command[3:]]
    assert cli.main(command) == 3
    printed = capsys.readouterr().out
    assert f"same picture in two splits: 1\n  {copied} = {target}" in printed
    assert "unreadable: 2" in printed
    assert "single slice" in printed
    assert "series of 3 volumes" in printed


def test_several_labels_an_image(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(path.relative_to(films).as_posix() for path in films.rglob("*.png"))
    rows = [f"{file},{('round', 'long', 'round|long', 'No Finding')[i % 4]}" for i, file in enumerate(files)]
    (films / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    options = ["--output_dir", str(tmp_path / "out")]
    assert cli.main(["data", "check", str(films), *options]) == 3
    assert "--task multilabel" in capsys.readouterr().err
    assert cli.main(["data", "check", str(films), "--task", "multilabel", *options]) == 0
    assert "round: " in capsys.readouterr().out


def test_a_missing_source(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["data", "check", str(tmp_path / "nothing")]) == 3
    assert "no such folder or file" in capsys.readouterr().err


def test_a_public_archive_is_checked_by_its_preset(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The classes lie a folder deeper than what is named, and beside a folder that the layout leaves out."""
    classes = sorted(path.name for path in films.iterdir())
    preset = tmp_path / "dataset_films.json"
    about = {"name": "Films", "address": "https://example.org", "license": "CC0", "splits": "none"}
    about |= {"tree": [f"{name}/*.png" for name in classes], "layout_status": "confirmed", "layout_source": "here"}
    content = {"class_names": classes, "layout": {"kind": "folders"}, "data_source": about}
    preset.write_text(json.dumps(content), encoding="utf-8")
    options = ["--preset", str(preset), "--output_dir", str(tmp_path / "out")]
    assert cli.main(["data", "check", str(tmp_path), *options]) == 0
    assert "24 images" in capsys.readouterr().out
    shutil.rmtree(films / classes[0])
    assert cli.main(["data", "check", str(tmp_path), *options]) == 3
    assert "Films is expected in dataset_dir as:" in capsys.readouterr().err
    assert cli.main(["data", "check", str(tmp_path / "gone"), *options]) == 3
    assert "Films is expected in dataset_dir as:" in capsys.readouterr().err
    for wrong in ("[1]", "{", "{}"):
        preset.write_text(wrong)
        assert cli.main(["data", "check", str(tmp_path), *options]) == 3
        assert "dataset_films.json: is no preset" in capsys.readouterr().err
