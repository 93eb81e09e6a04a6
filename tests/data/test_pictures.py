"""PNG, JPEG, TIFF, WebP, BMP and GIF in every mode, against Pillow itself and against hand-made truth."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmamba_monai.data.image import read_image
from medmamba_monai.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (6, 8), dtype=np.uint8)


def _levels(path: Path) -> np.ndarray:
    """8-bit levels, channels last."""
    array = read_image(path).array
    assert array.dtype == np.float32
    return np.moveaxis(array, 0, -1) * 255


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp", ".gif"])
def test_grey_and_rgb_lossless(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ü 空{suffix}"
    if suffix not in (".webp", ".gif"):
        Image.fromarray(GREY).save(path)
        np.testing.assert_array_equal(_levels(path), GREY[..., None])
    Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    if suffix == ".gif":  # 48 different colours fit a palette
        assert np.abs(_levels(path) - RGB).max() <= 1
    else:
        np.testing.assert_allclose(_levels(path), RGB, atol=1e-4)
    meta = read_image(path).meta
    assert meta["filename_or_obj"] == str(path)


def test_jpeg_equals_pillow(tmp_path: Path) -> None:
    for mode in ("L", "RGB", "CMYK"):
        Image.fromarray(RGB).convert(mode).save(tmp_path / "x.jpg")
        oracle = np.asarray(Image.open(tmp_path / "x.jpg").convert("L" if mode == "L" else "RGB"))
        levels = _levels(tmp_path / "x.jpg")
        np.testing.assert_allclose(levels, oracle.reshape(levels.shape), atol=1e-4)


def test_palette_becomes_its_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(GREY % 4, mode="P")
    picture.putpalette([10, 20, 30, 200, 100, 0, 0, 255, 0, 9, 9, 9])
    picture.save(tmp_path / "p.png")
    table = np.array([[10, 20, 30], [200, 100, 0], [0, 255, 0], [9, 9, 9]])
    np.testing.assert_allclose(_levels(tmp_path / "p.png"), table[GREY % 4], atol=1e-4)
    assert read_image(tmp_path / "p.png").meta["notes"] == ["palette to RGB"]


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([RGB, ALPHA])).save(tmp_path / "rgba.png")
    Image.fromarray(np.dstack([GREY, ALPHA])).save(tmp_path / "la.png")
    np.testing.assert_allclose(_levels(tmp_path / "rgba.png"), RGB, atol=1e-4)
    np.testing.assert_allclose(_levels(tmp_path / "la.png"), GREY[..., None], atol=1e-4)
    assert read_image(tmp_path / "la.png").meta["notes"] == ["alpha dropped"]


def test_bits_1_16_32(tmp_path: Path) -> None:
    Image.fromarray(GREY > 127).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_image(tmp_path / "1.png").array[0], GREY > 127)
    deep = RNG.integers(0, 65536, (6, 8), dtype=np.uint16)
    for name in ("16.png", "16.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        np.testing.assert_allclose(read_image(tmp_path / name).array[0], deep / 65535, atol=1e-7)
    big = tmp_path / "big.tif"
    Image.frombytes("I;16B", (8, 6), deep.astype(">u2").tobytes()).save(big)
    np.testing.assert_allclose(read_image(big).array[0], deep / 65535, atol=1e-7)
    values = RNG.normal(size=(6, 8)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "f.tif")
    scaled = (values - values.min()) / np.ptp(values)
    np.testing.assert_allclose(read_image(tmp_path / "f.tif").array[0], scaled, atol=1e-6)
    np.testing.assert_array_equal(read_image(tmp_path / "f.tif", scale=None).array[0], values)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.zeros((32, 48), np.uint8)
    upright[:16, :16] = 255  # bright top left corner
    # how a camera stores the upright picture for each orientation, from the EXIF definition
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"x{suffix}", exif=exif)
    array = read_image(tmp_path / f"x{suffix}", color="grey").array[0]
    assert array.shape == upright.shape
    assert np.abs(array - upright / 255).mean() < 0.02


def test_frames_of_tiff_and_gif(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((3, 4), value, np.uint8)) for value in (10, 200)]
    for name in ("x.tif", "x.gif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        image = read_image(tmp_path / name, color="grey")
        assert image.array * 255 == pytest.approx(10, abs=1e-3)
        assert image.meta["frames"] == 2
        assert read_image(tmp_path / name, color="grey", frame=1).array * 255 == pytest.approx(200, abs=1e-3)
        with pytest.raises(DataError, match="has 2 frames, frame 2"):
            read_image(tmp_path / name, frame=2)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp", ".gif"])
@pytest.mark.parametrize("keep", [0.2, 0.6, 0.95])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=rf"x\{suffix}: .*Remedy") as caught:
        read_image(path)
    assert str(caught.value).count("Remedy") == 1


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((60000, 60000), "claims too many pixels"),
        ((9000, 9000), "more than the limit"),
        ((8000, 8000), "claims 8000 x 8000 pixels in 99 bytes"),
    ],
)
def test_headers_that_lie_about_the_size(tmp_path: Path, size: tuple[int, int], message: str) -> None:
    (tmp_path / "x.png").write_bytes(_png(*size, zlib.compress(b"\0" * 100) + b"x" * 30))
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "x.png")


def test_a_large_limit_can_be_lowered(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="claims 6 x 8 pixels, more than the limit of 40.*max_pixels"):
        read_image(tmp_path / "x.png", max_pixels=40)
