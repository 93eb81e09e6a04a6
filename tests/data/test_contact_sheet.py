"""The contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medmamba_monai.data.contact_sheet import TILE, tile, write_contact_sheet


def test_tiles_keep_the_shape_of_the_picture() -> None:
    wide = tile(np.ones((1, 50, 200), np.float32))
    assert wide.shape == (TILE, TILE, 3)
    assert (wide == 255).all(axis=-1).sum() == TILE * TILE // 4
    red = tile(np.stack([np.ones((9, 9)), np.zeros((9, 9)), np.zeros((9, 9))]).astype(np.float32))
    assert red[TILE // 2, TILE // 2].tolist() == [255, 0, 0]
    volume = np.zeros((1, 20, 20, 3), np.float32)
    volume[:, 5:15, 5:15, 1] = 0.01
    volume[..., 0] = 1
    shown = tile(volume)[..., 0]
    assert (shown[TILE // 2, TILE // 2], shown[TILE // 2, TILE // 2 - 8]) == (255, 0)
    assert not tile(np.ones((1, 20, 20, 3), np.float32)).any()


def test_one_row_a_class(tmp_path: Path) -> None:
    white = np.full((TILE, TILE, 3), 200, np.uint8)
    write_contact_sheet(tmp_path / "out" / "sheet.png", {"ä 空": [white] * 9, "empty": []}, columns=3)
    sheet = np.asarray(Image.open(tmp_path / "out" / "sheet.png"))
    assert sheet.shape == (2 * (TILE + 14), 3 * TILE, 3)
    assert (sheet[14 : 14 + TILE] == 200).all()
    assert (sheet[TILE + 14 + 14 :] == 255).all()
