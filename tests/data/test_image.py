"""read_image as a whole: kinds of files told by content, damaged files, memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.data.image import read_image
from medmamba_monai.errors import ConfigError, DataError


@pytest.mark.parametrize("name", ["x.jpg", "x.tif", "x", "x.exe"])
def test_content_counts_not_the_name(tmp_path: Path, name: str) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    shutil.move(tmp_path / "x.png", tmp_path / name)
    np.testing.assert_allclose(read_image(tmp_path / name).array[0], pixels / 255, atol=1e-7)


def test_a_hash_sign_in_a_name_is_just_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "ünï 空 #% x.npz#train"
    folder.mkdir()
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(folder / "7.png")
    shutil.move(folder / "7.png", folder / "7")
    assert read_image(folder / "7").array.shape == (1, 3, 4)


def test_very_long_paths(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100) / ("f" * 100)
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(folder / "x.png")
    assert read_image(folder / "x.png").meta["filename_or_obj"] == str(folder / "x.png")


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "x.png")
    monkeypatch.chdir(tmp_path)
    assert read_image("x.png").meta["filename_or_obj"] == str(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((4, 5), np.uint8, (1, 4, 5)),
        ((4, 5, 3), np.uint8, (3, 4, 5)),
        ((4, 5, 1), np.uint8, (1, 4, 5)),
        ((4, 5, 6), np.uint8, (1, 4, 5, 6)),
        ((4, 5), np.uint16, (1, 4, 5)),
        ((4, 5), bool, (1, 4, 5)),
    ],
)
def test_members_of_archives(tmp_path: Path, shape: tuple[int, ...], dtype: type, expected: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 2 if dtype is bool else 256, (3, *shape)).astype(dtype)
    np.savez(tmp_path / "x.npz", test_images=values)
    image = read_image(f"{tmp_path}/x.npz#test/2")
    assert image.array.shape == expected
    white = 1 if dtype is bool else np.iinfo(dtype).max
    oracle = np.moveaxis(values[2], -1, 0) if shape[2:] == (3,) else values[2].reshape(expected)
    np.testing.assert_allclose(image.array, oracle / white, atol=1e-7)
    assert image.meta["filename_or_obj"] == f"{tmp_path}/x.npz#test/2"


def test_real_archive(shared: Path) -> None:
    path = shared / "data" / "medmnist" / "pneumoniamnist_half.npz"
    oracle = np.load(path)["val_images"]
    for index in (0, 137, 269):
        np.testing.assert_allclose(read_image(f"{path}#val/{index}").array[0], oracle[index] / 255, atol=1e-7)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"<html>404</html>", "begins with b'<html>40'"),
        (b"\x1f\x8bxxx", "gzip archive.*unpack"),
        (b"\x89PNG\r\n\x1a\n", "is no picture|cannot be decoded"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "x.bin")


def test_missing_and_wrong_dimensions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.png: cannot be read: No such file"):
        read_image(tmp_path / "gone.png")
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="is 2-dimensional, 3 dimensions are needed"):
        read_image(tmp_path / "x.png", spatial_dims=3)
    for window in ("wide", (1,), (1, 2, 3), (40, 0)):
        with pytest.raises(ConfigError, match="window"):
            read_image(tmp_path / "x.png", window=window)  # type: ignore[arg-type]


# files of the malformed pack that are valid after all, and the shape they must have
VALID = {
    "J2K_pixelrep_mismatch.dcm": [1, 512, 512],
    "constant.nii.gz": [1, 41, 33, 25],
    "not_gzip.nii.gz": [1, 41, 33, 25],
    "png_named_jpg.jpg": [3, 120, 120],
    "rgba.png": [3, 120, 120],
    "palette.png": [3, 120, 120],
    "cmyk.jpg": [3, 120, 120],
    "gray16.png": [1, 120, 120],
    "one_pixel.png": [3, 1, 1],
}
_SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from medmamba_monai.data.image import read_image
from medmamba_monai.errors import DataError

def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024

base = peak()
for path in sys.argv[1:]:
    try:
        print(json.dumps([path, list(read_image(path).array.shape), ""]))
    except DataError as error:
        print(json.dumps([path, None, str(error)]))
print(json.dumps(peak() - base))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure memory")
def test_every_malformed_file_reads_right_or_gives_one_data_error(shared: Path) -> None:
    folder = shared / "data" / "malformed"
    paths = sorted(str(path) for path in folder.rglob("*") if path.suffix not in (".csv", ".md") and path.is_file())
    assert len(paths) == 57
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *paths],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    *lines, grown = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == 57
    for path, shape, error in lines:
        name = Path(path).name
        if name in VALID:
            assert shape == VALID[name], (name, error)
        else:
            assert shape is None, name
            assert error.startswith(path) and error.count("Remedy: ") == 1, error
    assert grown <= 500, f"{grown:.0f} MB above the import baseline"


def test_the_valid_ones_hold_the_right_pixels(shared: Path) -> None:
    folder = shared / "data" / "malformed" / "derived"
    for name in ("png_named_jpg.jpg", "palette.png", "cmyk.jpg", "one_pixel.png", "rgba.png"):
        oracle = np.moveaxis(np.asarray(Image.open(folder / name).convert("RGB")), -1, 0)
        np.testing.assert_allclose(read_image(folder / name).array * 255, oracle, atol=1e-3)
    grey = np.asarray(Image.open(folder / "gray16.png")).astype(np.uint16)
    np.testing.assert_allclose(read_image(folder / "gray16.png").array[0] * 65535, grey, atol=0.01)
    image = read_image(folder / "nan_inf.nii.gz", nonfinite="replace")
    assert image.meta["nonfinite"] > 0
    assert read_image(folder / "singular_affine.nii.gz", orientation=None).array.shape == (1, 33, 41)
