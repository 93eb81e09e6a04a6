"""Sizes claimed by compressed code, against Pillow and the real DICOM files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import get_frame

from medmamba_monai.data.codestreams import coded_size


@pytest.mark.parametrize("arguments", [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG2000", {})])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_sizes_equal_pillows(arguments: tuple[str, dict[str, bool]], mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((37, 91), np.uint8)).convert(mode).save(buffer, arguments[0], **arguments[1])
    assert coded_size(buffer.getvalue()) == (37, 91)
    assert coded_size(buffer.getvalue()[:20]) is None


@pytest.mark.parametrize("code", [b"", b"\xff\xd8", b"\xff\xd8\xff\xff\xff", b"\x89PNG", b"\0" * 64])
def test_other_bytes_have_no_size(code: bytes) -> None:
    assert coded_size(code) is None


def test_real_files(shared: Path) -> None:
    seen = 0
    for path in sorted((shared / "data" / "dicom").rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        if "JPEG" not in dataset.file_meta.TransferSyntaxUID.name:
            continue
        seen += 1
        code = get_frame(dataset.PixelData, 0, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
        assert coded_size(code) == (dataset.Rows, dataset.Columns), path.name
    assert seen == 6
